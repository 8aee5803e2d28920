"""Resources in an AWS account: declared in a file, made, changed and deleted."""
