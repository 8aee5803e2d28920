"""The state in Redis: layouts, scripts that change it in one atomic step, and reads of it."""
