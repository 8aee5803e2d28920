"""Resources in an AWS account: declared in a file, created, updated and deleted."""
