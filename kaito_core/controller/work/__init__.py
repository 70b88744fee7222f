"""One pass for one Workspace at a time: when it is due, what it observes, and the writes that its plan asks for."""
