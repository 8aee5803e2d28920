"""What operators ask for: status, dead letters sent again, and ways past unreadable batches."""
