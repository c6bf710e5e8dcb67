"""An explicit-state model checker of the write protocol that `docs/write-protocol.md` describes.

state           what a state of the model is: the head, the passages, the processes and what is under way
opensearch      what OpenSearch does with a request, and by itself
steps           the protocol: what a process does next
specification   what must hold in every state, and where nothing can happen any more
configurations  which operations are explored together, with which faults
explorer        the breadth-first search, and the steps that lead to a violation
today           the protocol that heads replaced, kept to show that the checker finds its faults

A step of the model is what OpenSearch does atomically: a GET, one item of a bulk, a conditional write of the head, a
refresh of one shard. Each passage is on a shard of its own. Anything else may happen between two steps: the steps of
other processes, kill -9, a request that times out and is applied later or never, the loss of a head that was stored but
not acknowledged.
"""
