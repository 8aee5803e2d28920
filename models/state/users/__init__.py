"""Reads over what is held of users: interactions, exports, receipts of erasures, features."""
