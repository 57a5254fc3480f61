"""Several inputs at once, by workers that share nothing with each other.

the caller's process                      a worker, one of N
team: hands out inputs, one a worker  ->  desk: loads the detector, does one input after
merge: keeps the data that come back  <-  another, sends what its data files would hold
until it is their input's turn

Where there are fewer inputs than workers, long videos are divided at key frames (parts): all
workers look at parts, the caller's process follows the faces through the whole, all draw, and what
they drew is joined (divided).

Workers are processes of this machine (processes, serve) or actors of a Ray cluster (cluster); a
crew is what a team sees of either.
"""
