"""The Lua scripts of the atomic steps, and what makes and registers them."""
