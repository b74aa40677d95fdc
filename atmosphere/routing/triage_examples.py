"""Requests that a small language model can do and such that need a large one: what triage is learnt from.

Written for this project by one person, who judged by what models of 3 to 8 billion weights are known to get wrong:
several steps that depend on each other, expert knowledge, longer code, texts that have to hold together.
"""

from __future__ import annotations

EASY: tuple[str, ...] = (
    "What's 2+2?",
    "hi",
    "Thanks, that helped!",
    "Translate 'good morning' to Spanish",
    "What is the capital of Norway?",
    "Fix the typos in: I has went to the shopp",
    "Write a short birthday wish for my aunt",
    "Is a tomato a fruit?",
    "Give me a synonym for happy",
    "Convert 30 degrees Celsius to Fahrenheit",
    "Turn this into a list: apples, pears, plums",
    "What day comes after Tuesday?",
    "Make this sentence more polite: Send me the file.",
    "Tell me a joke about cats",
    "How do I say thank you in Japanese?",
    "Summarize in one sentence: The meeting moved to Friday because the room is taken on Thursday.",
    "Who wrote Hamlet?",
    "Set a title for a mail about a late delivery",
    "hello there",
    "What time zone is Berlin in?",
    "17 * 3",
    "Translate this to French: where is the station",
    "Rewrite this in past tense: She walks to school",
    "Name three colours",
    "Who is the president of France?",
    "Make a haiku about rain",
    "Spell necessary",
    "How many minutes are in a day?",
    "Suggest a name for a black dog",
    "Is this review positive or negative: The soup was cold and the waiter rude.",
    "Extract the date from: see you on 4 May at noon",
    "What does ASAP mean?",
    "Correct my grammar: he don't know nothing",
    "Write one line to decline an invitation",
    "good night",
    "List the planets",
)

HARD: tuple[str, ...] = (
    "Analyze the security implications of our network topology",
    "Design a database schema for a hospital that handles shifts, patients, wards and billing, and explain "
        "the trade-offs",
    "Prove that the square root of two is irrational, then generalize the proof to all primes",
    "Refactor this module to use dependency injection and write unit tests for every branch",
    "Compare the legal risks of storing medical records in three different jurisdictions",
    "Write a detailed business plan with a financial forecast for a bakery that wants to expand to four cities",
    'Debug this: Traceback (most recent call last):\n  File "a.py", line 3, in <module>\n    '
        "asyncio.run(main())\nRuntimeError: cannot be called from a running event loop. It only happens under "
        "load.",
    "Plan a three week trip through Japan for a family of five with a budget of 9000 euros, day by day, "
        "taking into account trains, allergies and a wheelchair",
    "Derive the gradient of the cross entropy loss with respect to the logits step by step",
    "Review this contract clause for loopholes and suggest stricter wording with reasons",
    "Explain why our p99 latency doubled after the migration, given these metrics, and propose experiments",
    "Write a parser in Rust for a small language with precedence climbing and good error messages",
    "Critically evaluate the methodology of this clinical study and its statistical power",
    "Work out an optimal strategy for this scheduling problem with seven machines and deadlines",
    "Write an essay of 1500 words on the causes of the First World War that weighs competing historians",
    "Which architecture should we choose: event sourcing or CRUD? Consider consistency, audit, team size, cost",
    "Find the race condition in this Go service and explain how to fix it without a global lock",
    "Assess the strengths and weaknesses of our pricing strategy against two competitors",
    "Implement a lock-free queue in C++ and argue why it is linearizable",
    "Give a rigorous derivation of the Black-Scholes equation and discuss its assumptions",
    "Draft a grant proposal for a study on coral reefs with aims, methods, timeline and risks",
    "Walk me through migrating a monolith to services: what first, what can go wrong, how to roll back",
    "Write a SQL query that finds users whose retention dropped for three months in a row, and optimize it",
    "Analyse the symbolism in the second chapter and relate it to the author's biography",
    "Diagnose why the model overfits and recommend a regularisation plan with reasons",
    "Create a lesson plan for a semester of linear algebra with exercises of increasing difficulty",
    "Given that all but two of the boxes are mislabelled, and each label names another box, determine the "
        "fewest boxes that must be opened to know them all, and prove it",
    "Interpret these blood values together with the patient's medication and list differential diagnoses",
    "Write a script that watches a folder, deduplicates photos by content, and survives restarts; include tests",
    "What are the geopolitical consequences of a closed strait for grain prices in North Africa?",
    "Estimate the total cost of ownership of both options over ten years and show your assumptions",
    "Negotiate with me as a supplier; keep track of my concessions and never go below your hidden limit",
)
