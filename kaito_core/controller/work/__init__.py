"""One pass at a time for each Workspace: when it runs, what it observes, and how its plan is executed."""
