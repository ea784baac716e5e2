"""What each command does; the only place where rooms meet."""
