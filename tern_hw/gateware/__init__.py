"""The accelerator in Amaranth: one block a file, put together in `core` and `array`.

::

    activation --> frame --> convert --> memory ----.          one word of `lanes` integers
    stream                                           |
    weight ------> frame --> [ decode --> tree --> group sum ]  x rows            (dot)
    stream           |                               |
    scale -------> frame --> ring --> [ alpha * S + gamma * X, summed over K ]  x rows   (scale)
    stream           |                               |
                 sequencer, walk, credit           serializer --> rounder --> ring  (results)
                     |                                                         |
    AXI4-Lite --> registers                                              result stream

The sequencer issues a step only when its beats are there and its results will find a place.
Behind the issue nothing ever waits: a step's tag (`pipeline.step_layout`) travels beside its data,
and every block states its latency, which `core` adds up.
"""
