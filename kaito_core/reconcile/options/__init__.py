"""What a Workspace asks of its pods, its server and its weights besides the preset, merged and checked."""
