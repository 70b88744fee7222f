"""The fetchers that kaito-core brings, one a file, and the pieces that fetchers of plugins share."""
