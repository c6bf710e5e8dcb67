"""Between HTTP and search: what is cached, what is let in, and how fresh a cached answer must be."""
