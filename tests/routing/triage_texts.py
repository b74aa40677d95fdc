"""Requests to measure triage with: whether each needs a large model. None of them was used to make it.

Against the obvious short cut: half of the easy ones are long, half of the hard ones short (length alone: AUROC .52).
"""

from __future__ import annotations

FRESH: tuple[tuple[bool, str], ...] = (
    (False, "yo what's up"),
    (False, "Opposite of generous?"),
    (False, "Pick a random number between 1 and 10"),
    (False, "cheers mate"),
    (False, "What colour do blue and yellow make?"),
    (False, "Say it in German: my train is late"),
    (False, "Capital letters please: new york"),
    (False, "Is 91 odd or even?"),
    (False, "Reply that I agree"),
    (False, "An emoji for a celebration"),
    (False, "Shorten this to ten words, keep the names: Anna and Boris met at the station on Monday, had "
            "coffee, talked about the weather, missed their train, laughed about it, and then walked home "
            "together through the park"),
    (False, "Put these in alphabetical order: zebra, antelope, monkey, dolphin, crocodile, beaver, giraffe, "
            "lion, tiger, elephant, hamster, rabbit, wolf, fox, bear, and otter, one per line please"),
    (False, "Make it friendlier: I have received your message and I will not be able to come on Tuesday "
            "because I have another appointment then, so we would have to find another day, maybe Thursday"),
    (False, "Here is my shopping: milk 1.20, bread 2.10, cheese 4.50. I gave the cashier ten euros. How much "
            "do I get back? Just the amount, nothing else, I am standing in front of the shop"),
    (False, "My friend is turning thirty tomorrow and she loves cats, chocolate and hiking; could you write "
            "two cheerful lines that I can put on a card together with a picture of her cat"),
    (False, "Which of these mails is spam? First: Dear Sir, you have won two million. Second: Hi, lunch at "
            "one? Third: The minutes of yesterday are attached"),
    (False, "Tell me what the weather in this report is like, good or bad: Rain from the west, gusts up to 80 "
            "km/h, in the afternoon hail, temperatures around five degrees"),
    (False, "I need the plural of these words, in the same order and separated by commas: child, mouse, goose, "
            "leaf, foot, tooth, person, ox, man, woman"),
    (False, "Please give me the phone number in this text and nothing else: You can reach our office every "
            "weekday from eight to four at 555 0134, ask for Maria or write to us"),
    (False, "Good evening! We are a group of six and would like to sit outside on Saturday. Could you turn "
            "that into a polite message to the restaurant?"),
    (True, "Is P equal to NP? Argue both sides"),
    (True, "Why does my mutex deadlock?"),
    (True, "Solve x^4 - 5x^2 + 6 = 0 over the quaternions"),
    (True, "Find all integer solutions of a^3 + b^3 = 1729 c^3"),
    (True, "Critique Rawls from a libertarian view"),
    (True, "Is this merger antitrust-proof?"),
    (True, "Build me a chess engine"),
    (True, "Reconcile general relativity with quantum mechanics"),
    (True, "Write the first chapter of a crime novel"),
    (True, "Model the spread of a rumour mathematically"),
    (True, "Our service drops one request in ten thousand, only on Tuesdays, only behind the second load "
           "balancer, and only when the body exceeds 64 KiB. What could it be, and in which order would you "
           "look?"),
    (True, "I inherit a house with my two brothers, one lives abroad and owes the estate money, the will is "
           "from before the second marriage. What happens if one of us wants to sell and the others do not?"),
    (True, "Turn these forty user interviews into themes with evidence, contradictions and what we should "
           "build next"),
    (True, "Write a compiler pass in OCaml that eliminates common subexpressions across basic blocks and "
           "keeps debug information intact"),
    (True, "Our cohort shrinks by three percent a month but revenue grows; break down which segments, prices "
           "and channels could make both true, and what data would tell them apart"),
    (True, "Play the examiner for my oral exam in thermodynamics: ask harder and harder questions, notice "
           "when I bluff, and give me a grade with reasons at the end"),
    (True, "Take this 1980s Fortran routine for sparse matrices, find where it relies on undefined behaviour, "
           "and write it again in modern C++ with the same numerical results"),
    (True, "Two trains, three platforms, a maintenance window and a late connection: set up a timetable that "
           "minimises the waiting of transfer passengers and show that no better one exists"),
    (True, "Summarise the debate about free will among philosophers since Hume and say which position is the "
           "most coherent"),
    (True, "Choose between these four job offers with me: ask what matters to me, notice where I contradict "
           "myself, and come to a reasoned recommendation"),
)
