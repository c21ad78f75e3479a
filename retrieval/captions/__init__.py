"""Sentences about faces: from attributes to words and back.

    vocabulary.py   every attribute that can be said: its tag, its column names, its words
    grammar.py      attributes -> sentences, several a face, full or partial
    reading.py      a sentence -> what it says of attributes, word by word
    policy.py       words that a sentence may not ask for
    strict.py       a sentence -> a filter over tags, and the rest of the sentence

All of it is plain text in and out: no model, no store. Ethnicity, skin colour, attractiveness and
emotion are in no table of words, so that no sentence made here can say them.
"""
