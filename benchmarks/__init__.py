"""How fast step_redis is beside what a user would pick instead; README.md explains the method."""
