"""What `videogender bench` measures, and how.

`plan.measure` runs the parts one after another. Each part lives in a process of its own (`child`),
so that the thread pools of one never disturb another; what is compared is measured in turns.
"""
