"""Several inputs at once, in processes that share nothing with each other.

the caller's process                      a worker, one of N
team: hands out inputs, one a worker  ->  serve: loads the detector, does one input after
merge: keeps the data that come back  <-  another, sends what its data files would hold
until it is their input's turn
"""
