"""Questions written for this project, easy enough for a model of a hundred million parameters.

Each answer, and each wrong option, is one common word, so that a model may be judged by its next token.
"""

from __future__ import annotations

# (what the model reads, the word that should come next)
CLOZE: tuple[tuple[str, str], ...] = (
    ("The capital of France is the city of", "Paris"),
    ("The opposite of hot is cold, and the opposite of up is", "down"),
    ("Monday, Tuesday, Wednesday, Thursday,", "Friday"),
    ("One, two, three, four, five,", "six"),
    ("Anna poured the milk into a glass and drank the", "milk"),
    ("At night you can see the moon and the", "stars"),
    ("He put the key into the lock and opened the", "door"),
    ("She was so tired that she went to", "bed"),
    ("Tom and Mary had a son. They called their", "son"),
    ("January, February, March, April,", "May"),
    ("The sun rises in the east and sets in the", "west"),
    ("It was raining, so he opened his", "umbrella"),
    ("The queen lived in a castle with her husband, the", "king"),
    ("A week has seven days, and a year has twelve", "months"),
    ("We drove to the airport in my father's", "car"),
    ("The two brothers looked so alike that nobody could tell one from the", "other"),
    ("The baby was hungry and began to", "cry"),
    ("There is no smoke without", "fire"),
    ("They lived in a small house at the end of the", "street"),
    ("Spring, summer, autumn and", "winter"),
)

# (what the model reads, the right word, three wrong ones)
CHOICES: tuple[tuple[str, str, tuple[str, str, str]], ...] = (
    ("The animal that barks is called a", "dog", ("fish", "cow", "bird")),
    ("We cut bread with a sharp", "knife", ("spoon", "pillow", "candle")),
    ("Snow is cold, and its colour is", "white", ("green", "red", "purple")),
    ("You read a story in a", "book", ("shoe", "river", "knife")),
    ("Birds fly with their two", "wings", ("doors", "books", "wheels")),
    ("The teacher wrote the answer on the", "board", ("soup", "cloud", "bread")),
    ("To see in a dark room you switch on the", "light", ("dog", "bread", "water")),
    ("The ship sailed slowly across the", "sea", ("fork", "chair", "milk")),
    ("He was ill, so they called a", "doctor", ("table", "sandwich", "mountain")),
    ("Bees live together and make sweet", "honey", ("paper", "glass", "music")),
    ("When you are thirsty, you should drink some", "water", ("sand", "wood", "iron")),
    ("On her birthday she blew out the candles on the", "cake", ("horse", "road", "moon")),
    ("The farmer milked the", "cow", ("train", "piano", "lamp")),
    ("Fish swim in the", "water", ("sky", "fire", "desk")),
    ("She wore a warm coat because of the", "cold", ("music", "paper", "noise")),
    ("The pilot landed the", "plane", ("soup", "tree", "horse")),
    ("Ice that gets warm turns into", "water", ("gold", "paper", "stone")),
    ("We hear with our ears and see with our", "eyes", ("feet", "hands", "shoes")),
    ("The carpenter hit the nail with a", "hammer", ("banana", "letter", "blanket")),
    ("A triangle has three", "sides", ("dogs", "songs", "meals")),
)

# For copying, induction and retrieval; tokens differ between models, so each model uses those it knows as one token.
# Retrieval hides no word that is one of its text's places.
WORDS: tuple[str, ...] = (
    "apple", "river", "stone", "window", "garden", "paper", "music", "winter", "silver", "bridge", "horse",
    "mountain", "letter", "kitchen", "yellow", "finger", "market", "doctor", "island", "forest", "bottle", "summer",
    "orange", "village", "engine", "table", "pencil", "camera", "dragon", "planet", "button", "ticket", "candle",
    "basket", "mirror", "ladder", "hammer", "pepper", "rabbit", "castle", "guitar", "butter", "ocean", "desert",
    "tiger", "lemon", "piano", "rocket", "circle", "honey", "wallet", "tunnel", "puzzle", "ribbon", "shadow",
    "thunder", "velvet", "anchor", "copper", "feather",
)  # fmt: skip
PLACES: tuple[str, ...] = (
    "library", "harbour", "museum", "bakery", "station", "hospital", "theatre", "factory", "school", "castle",
    "airport", "prison",
)  # fmt: skip
