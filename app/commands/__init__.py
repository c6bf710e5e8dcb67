"""Commands of `braid`, one file each: options and body."""
