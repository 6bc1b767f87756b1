"""The demo: a small family of real models and the data to judge a merge of them."""
