"""Does it work? A foundation and tasks in, accuracies out.

    suite.yaml -> foundation + tasks -> heads, made of the base -> scores of models -> rows

suite         the file that names both
data          tasks: what a suite declares of them, where rows come from, splits
foundations   how models of one kind are loaded and asked
scoring       the processes, what each does, and what is not computed twice
results       the rows that are kept, tables of them, standard errors
routing       which task a row is of, told from features of a merged model
switching     tasks, corrections and routes in a live module
finetuning    a fine-tuning of a base for each task

Torch is imported where models are loaded, so that suites can be read without it.
"""
