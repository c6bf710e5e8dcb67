"""Writers of one document at once, stopped, killed and delayed at every step, on a real node: is the outcome right?"""
