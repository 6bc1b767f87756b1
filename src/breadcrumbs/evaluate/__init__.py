"""Does it work? A foundation and tasks in, accuracies out.

    suite.yaml -> foundation + tasks -> heads, made of the base -> scores of models -> rows

`task.py`: rows of inputs and labels, in three splits. `foundation.py`: how models of one kind are
loaded and asked. `suite.py`: both, read from one file; `tasks.py` makes tasks of what it declares,
`sources.py` and `hub.py` read their rows, `splits.py` draws, `reading.py` numbers the classes.
Torch is imported where models are loaded, so that suites can be read without it.
"""
