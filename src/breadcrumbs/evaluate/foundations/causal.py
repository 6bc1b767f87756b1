"""x"""


class Causal:
    kind = "causal"

    def __init__(self, settings, folder=None):
        self.settings = {}
