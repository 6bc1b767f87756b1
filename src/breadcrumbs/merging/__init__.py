"""From models and a recipe to a merged model: what `breadcrumbs.merge` and `compare` do.

api          models and arguments in, files or arrays out
opening      what users give, as open models and a plan
options      the arguments as type checkers know them;  typed: the parameters of methods (generated)
files        a plan carried out, into files or memory (arrays)
calibration  numbers that are found from the weights before a merge, such as `alpha: auto`
provenance   what an output says of its inputs;  published, inputs: their names there, their hashes
report       what a merge did;  card: the model card, with front (what hubs read) and licences
said         what the cards of inputs say;  chat: the chat template
reproducing  a merged model made again, and compared
estimate     how much memory a merge takes
result       merged tensors in memory;  saving, publishing: written and uploaded;  progress: a bar
sweep        many merges of one family, each as fast as it can be
comparison   how alike task vectors are;  task_vector: arithmetic on them;  products
"""
