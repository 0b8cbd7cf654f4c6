#!/usr/bin/env python3
"""Writes the demo corpus: short English stories that a model of a million parameters can learn.

    python3 configs/demo/make_corpus.py            # train.txt.gz and valid.txt.gz beside this file

Every story is written from templates by a seeded generator, so the files are the same everywhere
and free of anybody's copyright. The templates keep a small world in mind (who has what, what lies
where, how many are left, which day it is), and later sentences ask about it: a model without
working attention cannot know the answers. That makes the text a fair test of a changed attention.

Documents are separated by a line <|endoftext|>. None is in both files, and none twice in one.

In a template, [a|b|c] stands for one of the three, drawn afresh each time; brackets do not nest.
"""

import argparse
import gzip
import pathlib
import random
import re

END = "<|endoftext|>"

GIRLS = ("Anna Bella Clara Daisy Emma Fern Gina Hana Iris Julia Kira Lily Mia Nora Olive "
         "Rosa").split()
BOYS = "Adam Ben Carl Dan Eli Finn Greg Hugo Ivan Jack Karl Leo Max Noah Otto Sam".split()
ELDERS = [("Grandma", "she"), ("Grandpa", "he"), ("Mum", "she"), ("Dad", "he"),
          ("Aunt May", "she"), ("Uncle Bob", "he")]
COLOURS = "red blue green yellow white black brown pink orange purple grey".split()
THINGS = ("kite ball book cup hat lamp drum spoon boat box bag coat key doll truck bell basket "
          "rope scarf whistle").split()
SPOTS = ["in the shed", "on the table", "under the bed", "behind the door", "in the garden",
         "on the shelf", "in the kitchen", "under the bench", "near the well", "in the barn",
         "on the stairs", "behind the sofa", "in the attic", "by the gate", "in the drawer",
         "next to the window"]
HIDEOUTS = ["in the shed", "under the bed", "behind the door", "in the garden", "in the kitchen",
            "under the bench", "near the well", "in the barn", "on the stairs", "behind the sofa",
            "in the attic", "by the gate", "under the table", "behind the wall"]
AT = {"park": "in", "shop": "at", "school": "at", "farm": "on", "river": "by", "beach": "on",
      "forest": "in", "library": "in", "market": "at", "bridge": "by", "hill": "on", "lake": "by",
      "mill": "at", "church": "in", "station": "at", "castle": "in"}
PLACES = list(AT)
PETS = "cat dog rabbit hen goat pony duck mouse turtle parrot".split()
PET_NAMES = "Pip Tuft Dot Bingo Snow Rusty Coco Moss Button Ziggy Pepper Honey".split()
FRUITS = "apples pears plums cherries lemons nuts grapes figs peaches carrots beans eggs".split()
MOODS = "happy sad tired angry proud scared".split()
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
           "fifteen sixteen seventeen eighteen nineteen twenty").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November "
          "December").split()
HOBBIES = [("paints a picture", "paint a picture"), ("plays chess", "play chess"),
           ("swims in the lake", "swim in the lake"), ("helps in the garden", "help in the garden"),
           ("reads a long book", "read a long book"), ("bakes bread", "bake bread"),
           ("goes fishing", "go fishing"), ("sings in the choir", "sing in the choir"),
           ("washes the car", "wash the car"), ("rides a bike", "ride a bike"),
           ("visits a friend", "visit a friend"), ("cleans the house", "clean the house")]
DISHES = "soup cake pie stew salad bread".split()
INGREDIENTS = {"carrots": "peel", "beans": "wash", "onions": "chop", "eggs": "beat",
               "butter": "melt", "flour": "sift", "milk": "warm", "apples": "slice",
               "cheese": "grate", "potatoes": "boil", "nuts": "crush", "lemons": "squeeze",
               "rice": "rinse", "plums": "cut"}
UNCOUNTED = {"butter", "flour", "milk", "cheese", "rice"}
# kind of day, what one sees, what to take along, what happens without it, what it does to the world
WEATHER = [
    ("rainy", "dark clouds", "an umbrella", "got very wet", "the path was full of puddles"),
    ("sunny", "a bright blue sky", "a hat", "got a red nose", "the grass was dry and warm"),
    ("snowy", "white flakes", "warm gloves", "had cold hands", "the roofs were all white"),
    ("windy", "leaves in the air", "a thick coat", "began to shiver", "a tree fell over the road"),
    ("foggy", "only a grey wall", "a bright lamp", "lost the way", "the birds were silent"),
    ("icy", "ice on the pond", "good boots", "slipped and fell", "the bus came late"),
]
ANIMALS = {  # what it has, what it does, where it lives
    "cat": ("soft paws and long whiskers", "I like to chase mice", "in a house"),
    "cow": ("two horns and a long tail", "I give milk", "on a farm"),
    "fish": ("fins but no legs", "I swim all day", "in a lake"),
    "owl": ("two big round eyes", "I hunt at night", "in a tree"),
    "bee": ("two pairs of wings and a sting", "I make honey", "in a hive"),
    "horse": ("four strong legs", "I can run fast and pull a cart", "in a stable"),
    "frog": ("a wide mouth and green skin", "I jump and catch flies", "near a pond"),
    "sheep": ("a thick white coat", "I give wool", "in a field"),
    "spider": ("eight thin legs", "I spin a web", "in a dark corner"),
    "hen": ("two legs and brown feathers", "I lay eggs", "in a coop"),
}
JOBS = [("baker", "bakes", "bread", "oven"), ("farmer", "grows", "corn", "plough"),
        ("tailor", "sews", "coats", "needle"), ("fisher", "catches", "fish", "boat"),
        ("smith", "makes", "nails", "hammer"), ("potter", "shapes", "bowls", "wheel")]
MIXES = [("red", "blue", "purple"), ("red", "yellow", "orange"), ("blue", "yellow", "green"),
         ("black", "white", "grey"), ("red", "white", "pink")]


class Person:
    def __init__(self, name, he):
        self.name, self.he = name, he
        self.him = "him" if he == "he" else "her"
        self.his = "his" if he == "he" else "her"

    def __str__(self):
        return self.name


def listing(items, last="and"):
    items = [str(item) for item in items]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def a(noun):
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def at(place):
    return f"{AT[place]} the {place}"


def singular(noun):
    if noun in UNCOUNTED:
        return noun
    irregular = {"cherries": "cherry", "peaches": "peach", "potatoes": "potato", "inches": "inch"}
    return irregular.get(noun, noun[:-1])


def amount(n, plural):
    """3 plums, 1 plum; 2 cups of milk."""
    if plural in UNCOUNTED:
        return f"{n} {'cup' if n == 1 else 'cups'} of {plural}"
    return f"{n} {singular(plural) if n == 1 else plural}"


class Teller:
    """Draws words and sentences, all from one stream of random numbers."""

    def __init__(self, rng):
        self.rng = rng

    def pick(self, items):
        return self.rng.choice(items)

    def some(self, items, n):
        return self.rng.sample(items, n)

    def number(self, low, high):
        return self.rng.randint(low, high)

    def maybe(self, chance=0.5):
        return self.rng.random() < chance

    def people(self, n):
        """n children; of the first two, one is a girl and one a boy, so pronouns are clear."""
        girls = [Person(name, "she") for name in self.some(GIRLS, n)]
        boys = [Person(name, "he") for name in self.some(BOYS, n)]
        pair = [girls[0], boys[0]]
        self.rng.shuffle(pair)
        rest = girls[1:] + boys[1:]
        self.rng.shuffle(rest)
        return (pair + rest)[:n]

    def elder(self):
        return Person(*self.pick(ELDERS))

    def things(self, n):
        """n coloured things, no two of a kind."""
        return [f"{self.pick(COLOURS)} {noun}" for noun in self.some(THINGS, n)]

    def tell(self, *sentences):
        """Joins sentences into a paragraph: choices drawn, first letters capital."""
        text = " ".join(sentence for sentence in sentences if sentence)
        text = re.sub(r"\[([^\[\]]*)\]", lambda m: self.pick(m.group(1).split("|")), text)
        text = re.sub(r" +", " ", text).strip()
        text = re.sub(r" ([.,!?])", r"\1", text)
        # After ?" and !" a small letter goes on with the sentence, as in: "Why?" asked Tom.
        return re.sub(r'(^|[.!?] |\." |[!?]" (?="))("?)([a-z])',
                      lambda m: m.group(1) + m.group(2) + m.group(3).upper(), text)


def where_is(t):
    """Things are put here and there; then somebody asks where they are."""
    people = t.people(t.number(2, 3))
    things = t.things(t.number(2, 3))
    spots = t.some(SPOTS, 6)
    places, last = {}, {}
    lines = [f"[One morning|After lunch|On {t.pick(DAYS)}|Before school] {listing(people)} "
             "[tidied the house|were at home|played a game|cleaned up together]."]
    events = things + t.some(things, t.number(1, len(things)))
    before = None
    for thing in events:
        who = t.pick([p for p in people if p is not before])
        spot = t.pick([s for s in spots if s not in places.values()])
        if thing in places:
            lines.append(t.pick([
                f"[Later|Then|After a while|But then] {who} found the {thing} {places[thing]} and "
                f"put it {spot}.",
                f"[Later|Soon|Then] {who} took the {thing} from its place {places[thing]} and "
                f"[left|put|hid] it {spot}."]))
        else:
            lines.append(f"{who} [put|left|hid|laid] the {thing} {spot}.")
        places[thing], last[thing], before = spot, who, who
    asker = t.elder()
    asked = t.some(things, t.number(1, len(things)))
    for i, thing in enumerate(asked):
        speaks = (f'"[Where is|Who knows where to find] the {thing}?" asked {asker}.' if i == 0 else
                  f'"And where is the {thing}?"')
        lines.append(f'{speaks} "[The {thing} is|It is] {places[thing]}," said {t.pick(people)}.')
    if t.maybe():
        thing = t.pick(asked)
        lines.append(f"It was {last[thing]} who put the {thing} there.")
    return t.tell(*lines)


def lost(t):
    """A child loses something on the way and a friend guesses where."""
    child, friend = t.people(2)
    thing, = t.things(1)
    noun = thing.split()[1]
    stops = t.some(PLACES, 3)
    found = t.pick(stops)
    return t.tell(
        f"{child} had {a(thing)}. [It was a gift from {t.elder()}.|{child.he} took it everywhere.|"
        f"It was the best {noun} in town.]",
        f"On {t.pick(DAYS)} {child} went to the {stops[0]}, then to the {stops[1]}, and then "
        f"to the {stops[2]}.",
        f"[At home|In the evening|When it got dark], {child.he} could not find the {noun}.",
        f'"[Oh no|Oh dear]! My {thing} is gone," [cried|said] {child}.',
        f'"Where did you go today?" asked {friend}. "I went to the {stops[0]}, the {stops[1]} and '
        f'the {stops[2]}," said {child}.',
        f'"[Maybe you left it|I think it is still|Let us look] at the {found}," said {friend}.',
        f"So {child} and {friend} [ran|walked|hurried] to the {found}.",
        f"[There it was|They looked and looked, and there it was]: the {thing} lay "
        f"[on a bench|in the grass|under a tree|on the ground].",
        f'"Thank you, {friend}!" said {child}. {child.he} [took|carried] the {noun} home and was '
        f"[happy|glad] again.")


def pets(t):
    """Children and their pets; the end remembers who owns which."""
    people = t.people(t.number(2, 3))
    kinds, names = t.some(PETS, len(people)), t.some(PET_NAMES, len(people))
    coats = t.some(COLOURS[3:7] + ["grey"], len(people))
    lines = []
    for person, kind, name, coat in zip(people, kinds, names, coats):
        lines.append(t.pick([
            f"{person} has {a(coat)} {kind}. [The {kind} is called|Its name is] {name}.",
            f"{person} has {a(kind)} called {name}. {name} is {coat}.",
            f"{person} and {person.his} {coat} {kind} {name} are good friends."]))
    order = t.some(range(len(people)), len(people))
    first = order[0]
    lines.append(
        f"[One day|One night|This morning] {names[first]} ran away. {people[first]} was very sad. "
        f'"[Has anyone seen|Where is] my {kinds[first]}?" {people[first].he} asked.')
    helper = people[order[1]]
    lines.append(t.pick([
        f"{helper} and {helper.his} {kinds[order[1]]} [helped|wanted to help]. "
        f"{names[order[1]]} [heard a noise|looked around] and found {names[first]} "
        f"{t.pick(HIDEOUTS)}.",
        f'"I saw {a(coats[first])} {kinds[first]} {t.pick(HIDEOUTS)}," said {helper}. It was '
        f"{names[first]}."]))
    lines.append(f"[Now|At last|In the end] {people[first]} was happy to have {names[first]} back.")
    for i in order[: t.number(1, 2)]:
        lines.append(t.pick([
            f"Whose pet is {names[i]}? {names[i]} is the {kinds[i]} of {people[i]}.",
            f"What is the name of the {kinds[i]}? The {kinds[i]} is called {names[i]}.",
            f"What colour is {names[i]}? {names[i]} is {coats[i]}."]))
    return t.tell(*lines)


def weather(t):
    """Weather, what people take along, and what it leads to."""
    wise, other = t.people(2)
    kind, sight, take, without, world = t.pick(WEATHER)
    place, day = t.pick(PLACES), t.number(0, 6)
    next_kind = t.pick([w for w in WEATHER if w[0] != kind])
    lines = [
        f"It was {a(kind)} {DAYS[day]}.",
        f"{wise} looked out of the window and saw {sight}.",
        f'"[I will|I should|Let us] take {take}," said {wise}. '
        f'"[I do not need that|No, I am fine]," said {other}.',
        f"They [walked|went] to the {place}. {wise} had {take}, but {other} had [none|nothing].",
        f"So {other} {without}, and {world}.",
        f'"Next time I will take {take} too," said {other}.']
    if t.maybe(0.6):
        lines.append(f"The next day was {DAYS[(day + 1) % 7]}. It was {next_kind[0]}, so {other} "
                     f"took {next_kind[2]} to the {place}.")
    if t.maybe(0.6):
        lines.append(f"[What did {other} do wrong|What happened on {DAYS[day]}]? It was {kind} and "
                     f"{other} did not take {take}.")
    return t.tell(*lines)


def giving(t):
    """Small sums told as giving and eating."""
    one, two = t.people(2)
    fruit = t.pick(FRUITS)
    n = t.number(2, 9)
    lines = [f"{one} [had|found|picked] {amount(n, fruit)}."]
    for _ in range(t.number(2, 4)):
        k = t.number(1, 6)
        if t.maybe() and n - k >= 1:
            n -= k
            were = "was" if n == 1 else "were"
            lines.append(t.pick([
                f"{one.he} [ate|lost] {amount(k, fruit)}, so {n} {were} left.",
                f"{one} gave {two} {amount(k, fruit)}. Now {one.he} had {n}."]))
        elif n + k <= 20:
            n += k
            lines.append(t.pick([
                f"{two} gave {one.him} {k} more. That made {n}.",
                f"Then {one.he} [found|picked|bought] {k} more and had {n}."]))
    lines.append(f'"How many {fruit} do you have [now|today]?" asked {t.elder()}. '
                 f'"I have {amount(n, fruit)}," said {one}.')
    if t.maybe():
        x, y = t.number(1, 10), t.number(1, 10)
        lines.append(f'"And what is {x} plus {y}?" "{x} plus {y} is {x + y}."')
    return t.tell(*lines)


def sharing(t):
    """Division without a rest."""
    people = t.people(t.number(2, 4))
    each = t.number(2, 5)
    total, fruit, giver = each * len(people), t.pick(FRUITS), t.elder()
    words = NUMBERS[total], NUMBERS[len(people)], NUMBERS[each]
    taking = listing([f"{p} took {words[2]}" for p in people])
    return t.tell(
        f"{giver} had a basket with {words[0]} {fruit}.",
        f'"Please share them," said {giver} to {listing(people)}.',
        f"There were {words[0]} {fruit} and {words[1]} children.",
        t.pick([f"So each child got {words[2]} {fruit}.",
                f"{taking}. Then the basket was empty."]),
        f"[{words[0]} shared by {words[1]} is {words[2]}.|"
        f"{words[1]} times {words[2]} is {words[0]}.|It was fair, and nobody was sad.]",
        f'"Who got the most?" asked {giver}. "Nobody! We all have {words[2]}," said {people[-1]}.')


def counting(t):
    """Counting, days and months: sequences forwards and backwards."""
    child, elder = t.people(1)[0], t.elder()
    kind = t.number(0, 4)
    if kind == 0:
        low = t.number(0, 10)
        high = t.number(low + 3, min(low + 9, 20))
        row = NUMBERS[low:high + 1]
        if t.maybe(0.4):
            row = row[::-1]
        ask = f"count from {row[0]} to {row[-1]}"
    elif kind == 1:
        step, start = t.pick([2, 5, 10]), t.number(1, 3)
        row = [str(step * i) for i in range(start, start + t.number(4, 8))]
        ask = f"count by {NUMBERS[step]}s from {row[0]} to {row[-1]}"
    elif kind == 2:
        start = t.number(0, 6)
        row = [DAYS[(start + i) % 7] for i in range(t.number(4, 7))]
        ask = f"say the days from {row[0]} to {row[-1]}"
    elif kind == 3:
        start = t.number(0, 11)
        row = [MONTHS[(start + i) % 12] for i in range(t.number(4, 8))]
        ask = f"say the months from {row[0]} to {row[-1]}"
    else:
        row = t.some(COLOURS + FRUITS, t.number(3, 6))
        ask = f"say these words again: {listing(row)}"
    lines = [f'"Can you {ask}?" asked {elder}.' if t.maybe() else f'"Please {ask}," said {elder}.',
             f'"{", ".join(row)}," said {child}.',
             f'"[Very good|Well done|That is right], {child}!"']
    if t.maybe(0.7):
        i = t.number(1, len(row) - 1)
        lines.append(f'"What came after {row[i - 1]}?" "{row[i]}," said {child}.')
        if t.maybe():
            lines.append(f'"And what came first?" "{row[0]}," said {child}.')
    return t.tell(*lines)


def calendar(t):
    """Yesterday, today and tomorrow, and a plan for them."""
    one, two = t.people(2)
    day = t.number(0, 6)
    before, today, after = DAYS[day - 1], DAYS[day], DAYS[(day + 1) % 7]
    plans = t.some(PLACES, 3)
    return t.tell(
        f"Today is {today}. Yesterday was {before}, and tomorrow will be {after}.",
        f"Yesterday {one} went to the {plans[0]}. Today {one.he} is {at(plans[1])}.",
        f"Tomorrow {one.he} [will go|wants to go] to the {plans[2]} with {two}.",
        f'"Where were you on {before}?" asked {two}. "I was {at(plans[0])}," said {one}.',
        f'"And where will we go on {after}?" "To the {plans[2]}," said {one}.' if t.maybe(0.7) else
        f'"What day comes after {after}?" "{DAYS[(day + 2) % 7]}," said {one}.')


def week(t):
    """A plan of the week, then questions about single days."""
    child, friend = t.people(2)
    start, n = t.number(0, 6), t.number(3, 5)
    days = [DAYS[(start + i) % 7] for i in range(n)]
    hobbies = t.some(HOBBIES, n)
    lines = [f"{child} [has a plan for the week|is busy this week|does something new every day]."]
    for i, (day, (does, _)) in enumerate(zip(days, hobbies)):
        lines.append(f"On {day} {child.he if i else child} {does}.")
    for i in t.some(range(n), t.number(1, 2)):
        lines.append(t.pick([
            f'"What do you do on {days[i]}?" asked {friend}. "On {days[i]} I {hobbies[i][1]}."',
            f'"When do you {hobbies[i][1]}?" asked {friend}. "On {days[i]}," said {child}.']))
    i = t.number(0, n - 1)
    lines.append(f'[{friend} wants to come along on {days[i]}. Then they will {hobbies[i][1]} '
                 f'together.|"May I come too when you {hobbies[i][1]}?" "Yes, come on {days[i]}!"]')
    return t.tell(*lines)


def recipe(t):
    """A list of what is needed, then the steps in the same order."""
    dish, cook = t.pick(DISHES), t.elder()
    foods = t.some(sorted(INGREDIENTS), t.number(3, 5))
    needs = [amount(t.number(1, 6), food) for food in foods]
    steps = []
    for i, food in enumerate(foods):
        start = "First" if i == 0 else t.pick(["Then", "Next", "After that"])
        if i == len(foods) - 1:
            start = "Last"
        steps.append(f"{start}, {INGREDIENTS[food]} the {food}.")
    minutes = t.pick([10, 20, 30, 40])
    vessel, verb = {"soup": ("pot", "cook"), "stew": ("pot", "cook"),
                    "salad": ("bowl", "rest")}.get(dish, ("pan", "bake"))
    end = f"Put everything in a {vessel} and let it {verb}"
    check = t.number(0, len(foods) - 1)
    return "\n".join([
        f"How {cook} makes {singular(foods[0])} {dish}.",
        "You need:", *[f"- {need}" for need in needs],
        t.tell(*steps, f"{end} for {minutes} minutes.",
               f"The {dish} [is ready|is done] when [it smells good|the clock rings].",
               f"How long does the {dish} {verb}? {minutes} minutes." if t.maybe() else
               f"What do you do with the {foods[check]}? You {INGREDIENTS[foods[check]]} the "
               f"{foods[check]}.")])


def deciding(t):
    """Two children want different things and do both, in order."""
    one, two = t.people(2)
    first, second = t.some(PLACES, 2)
    fruit = t.pick(FRUITS)
    agree = t.maybe(0.6)
    lines = [
        f'"[Let us go|I want to go|We could go] to the {first} today," said {one}.',
        f'"[No|Hm|Oh], I [like the {second} better|want to see the {second}]," said {two}.',
        f'"But we can [see the ducks|meet our friends|eat {fruit}] {at(first)}!"']
    if agree:
        lines += [f'"Then let us go to the {first} first and to the {second} later," said {two}.',
                  f'"[Good idea|That is a good plan|Yes]," said {one}.',
                  f"So they went to the {first}, and after that they went to the {second}.",
                  "[Both were happy.|They came home tired but happy.|It was a long and good day.]"]
    else:
        mood = t.pick(MOODS)
        lines += [f'"I am {mood} today," said {two}. "You can go alone."',
                  f"So {one} went to the {first} and {two} went to the {second}.",
                  f"[{at(first)} it was dull without {two}.|In the evening they met at home.]",
                  f'"How was the {second}?" asked {one}. "It was [nice|fine], but I missed you," '
                  f"said {two}."]
    return t.tell(*lines)


def letter(t):
    """A letter: who writes to whom frames it."""
    writer, friend = t.people(2)
    reader = t.elder() if t.maybe() else friend
    place, day, thing = t.pick(PLACES), t.pick(DAYS), t.things(1)[0]
    kind = t.pick(WEATHER)
    body = t.tell(
        "[How are you?|I hope you are well.]",
        f"I am {at(place)} with {friend if reader is not friend else t.elder()}.",
        f"It is [very|quite|so] {kind[0]} here. I always take {kind[2]} with me. "
        f"Yesterday {kind[4]}.",
        f"On {day} I [bought|found|made] {a(thing)} for you.",
        f"I will [bring|give] you the {thing.split()[1]} when I come home from the {place}.")
    lines = [f"Dear {reader},", body, "[Love|Best wishes|Yours]"]
    lines[2] = t.tell(lines[2]) + f",\n{writer}"
    if t.maybe(0.4):
        lines.append(t.tell(f"{reader} read the letter and smiled. \"{writer} is {at(place)} and "
                            f"has {a(thing)} for me,\" said {reader}."))
    return "\n".join(lines)


def riddle(t):
    """Two or three riddles between a child and an elder."""
    child, elder = t.people(1)[0], t.elder()
    lines = [f'"Do you know [a riddle|any riddles]?" asked {child}. "Yes," said {elder}. "Listen."']
    for animal in t.some(sorted(ANIMALS), t.number(1, 3)):
        has, does, home = ANIMALS[animal]
        clues = t.some([f"I have {has}.", f"{does}.", f"I live {home}."], t.number(2, 3))
        lines.append(f'"{" ".join(clues)} [What am I|Who am I]?" "You are {a(animal)}!" '
                     f"said {child}.")
    lines.append(f'[{elder} laughed. "You know them all!"|'
                 f'"You are clever, {child}," said {elder}.]')
    return t.tell(*lines)


def journey(t):
    """A way through places, and the same way back."""
    child, friend = t.people(2)
    stops = t.some(PLACES, t.number(3, 5))
    back = stops[::-1]
    way = [f"First {child.he} passed the {stops[0]}."]
    way += [f"[Then|Next|After that] {child.he} [came to|passed|saw] the {s}." for s in stops[1:-1]]
    way.append(f"[At last|In the end] {child.he} reached the {stops[-1]}, where {friend} "
               "was waiting.")
    return t.tell(
        f"{child} [went for a long walk|went on a trip|rode a bike to meet a friend].", *way,
        f'"How did you get here?" asked {friend}. "I passed '
        f'{listing([f"the {s}" for s in stops[:-1]])}," said {child}.',
        f"In the evening {child} went home the same way: from the {back[0]} past "
        f"{listing([f'the {s}' for s in back[1:]])}.")


def shopping(t):
    """Prices, a sum and the change."""
    child, elder = t.people(1)[0], t.elder()
    goods = t.some(FRUITS + ["bread", "milk", "cheese", "butter"], t.number(2, 3))
    costs = [t.number(1, 6) for _ in goods]
    total = sum(costs)
    purse = t.pick([n for n in (10, 15, 20) if n >= total])
    left = amount(purse - total, "coins")
    cost_of = t.number(0, len(goods) - 1)
    return t.tell(
        f'"Please go to the market and buy {listing(goods)}," said {elder}.',
        f"{elder} gave {child} {purse} coins.",
        *[f"The {good} cost {amount(cost, 'coins')}." for good, cost in zip(goods, costs)],
        f"Together that was {' + '.join(map(str, costs))} = {total} coins.",
        f"{child} paid {total} of the {purse} coins and [kept|brought back|had] {purse - total}."
        if purse > total else f"{child} paid all {purse} coins and had none left.",
        f'"Did you get {listing(goods)}?" asked {elder}.',
        f'"Yes, and I have {left} left," said {child}.' if purse > total else
        f'"Yes, but I have no coins left," said {child}.',
        f'"What did the {goods[cost_of]} cost?" "{amount(costs[cost_of], "coins")}," '
        f"said {child}." if t.maybe() else "")


def trading(t):
    """Children swap things; the end tells who has what."""
    people = t.people(3)
    things = t.things(3)
    has = dict(zip(people, things))
    lines = [" ".join(f"{person} had {a(thing)}." for person, thing in has.items())]
    for _ in range(t.number(1, 3)):
        one, two = t.some(people, 2)
        lines.append(t.pick([
            f'"[May I have|Can I get] your {has[two]}?" {one} asked {two}. "Yes, if you give '
            f'me the {has[one]}," said {two}. [So they swapped.|And so they did.]',
            f"[Then|Later|After that] {one} gave {two} the {has[one]} and got the {has[two]}."]))
        has[one], has[two] = has[two], has[one]
    for person in t.some(people, t.number(2, 3)):
        lines.append(t.pick([
            f"[Now|In the end] {person} had the {has[person]}.",
            f"Who had the {has[person].split()[1]} now? It was {person}.",
            f"What did {person} have now? {person} had the {has[person]}."]))
    return t.tell(*lines)


def comparing(t):
    """An order of three or four, told pair by pair."""
    people = t.people(t.number(3, 4))
    more, most, least = t.pick([
        ("taller", "tallest", "smallest"), ("older", "oldest", "youngest"),
        ("faster", "fastest", "slowest"), ("stronger", "strongest", "weakest")])
    facts = [f"{x} is {more} than {y}." for x, y in zip(people, people[1:])]
    shuffled = t.some(people, len(people))
    x, y = sorted(t.some(range(len(people)), 2))
    return t.tell(
        f"{listing(shuffled)} [are friends|are in one class|live in one street].", *facts,
        f"Who is the {most}? {people[0]} is the {most}.",
        f"And who is the {least}? {people[-1]} is the {least}." if t.maybe(0.7) else "",
        f"Is {people[x]} {more} than {people[y]}? Yes, {people[x]} is {more} than {people[y]}."
        if t.maybe() else
        f"Is {people[y]} {more} than {people[x]}? No, {people[x]} is {more}.",
        f"From the {most} to the {least} they are {listing(people)}." if t.maybe(0.7) else "")


def hiding(t):
    """Hide and seek: who was where, in what order found."""
    seeker, *others = t.people(t.number(3, 4))
    spots = dict(zip(others, t.some(HIDEOUTS, len(others))))
    high = t.number(5, 12)
    lines = [f"{listing([seeker] + others)} played hide and seek. {seeker} closed {seeker.his} "
             f"eyes and counted: {', '.join(NUMBERS[1:high + 1])}!"]
    lines += [f"{p} hid {spot}." for p, spot in spots.items()]
    order = t.some(others, len(others))
    for i, p in enumerate(order):
        start = "First" if i == 0 else "At last" if i == len(order) - 1 else "Then"
        lines.append(f"{start} {seeker.he} looked {spots[p]} and found {p}.")
    winner = order[-1]
    lines.append(f'"I was {spots[winner]} all the time!" [said|laughed] {winner}. '
                 f"{winner} [won|was the winner], and {order[0]} was the next to count.")
    return t.tell(*lines)


def painting(t):
    """Mixing colours."""
    child, friend = t.people(2)
    one, two, mix = t.pick(MIXES)
    if t.maybe():
        one, two = two, one
    thing, spot = t.pick(THINGS), t.pick(SPOTS)
    return t.tell(
        f"{child} wanted to paint the {thing} {mix}, but there was no {mix} paint.",
        f'"I have only {one} and {two}," said {child}.',
        f'"[Mix them|Put them together]!" said {friend}. "{one} and {two} make {mix}."',
        f"{child} mixed the {one} paint and the {two} paint, and [soon|now|at once] it was {mix}.",
        f"{child.he} painted the {thing} and let it dry {spot}.",
        f'"Whose {mix} {thing} is that {spot}?" asked {t.elder()}. "It is mine," said {child}. '
        f'"{friend} told me how to make {mix}."')


def working(t):
    """People and their trades, one helping another."""
    (job, makes, ware, tool), (job2, makes2, ware2, tool2) = t.some(JOBS, 2)
    one, two = t.people(2)
    n = t.number(2, 6)
    return t.tell(
        f"{one} is a {job} and {two} is a {job2}.",
        f"The {job} [{makes}|sells] {ware}, and the {job2} [{makes2}|sells] {ware2}.",
        f"One {t.pick(['cold', 'hot', 'long', 'bad'])} day the {tool} of the {job} broke.",
        f'"[How can I work without my {tool}?|I cannot work without my {tool}!]" said {one}.',
        f"{two} left {two.his} own {tool2} and came to help. "
        f"After {NUMBERS[n]} hours the {tool} was [as good as new|mended].",
        f"{one} thanked {two.him} and gave {two.him} [some|a box of|a lot of] {ware}.",
        f"Since then the {job} and the {job2} [are good friends|help each other].",
        f"Who needs {a(tool)}? The {job} does."
        if t.maybe() else f"What did {two} get? {two} got {ware}.")


def growing(t):
    """A plant grows day by day."""
    child, elder = t.people(1)[0], t.elder()
    colour, day = t.pick(COLOURS), t.number(0, 6)
    spot = t.pick(["by the window", "in the garden", "on the shelf", "by the gate",
                   "near the well"])
    height, grow = t.number(1, 4), t.number(1, 3)
    lines = [f"{elder} gave {child} a [small|tiny] seed. {child} put it in a pot {spot}.",
             f"Every day {child.he} gave it [some|a little|fresh] water."]
    for i in range(t.number(2, 4)):
        size = amount(height + grow * i, "inches")
        lines.append(f"On {DAYS[(day + i) % 7]} the plant was {size} [high|tall].")
    lines += [f"Each day it grew {amount(grow, 'inches')}.",
              f"[One week later|In {t.pick(MONTHS)}|At last] it had {a(colour)} flower.",
              f'"Look, {elder}!" said {child}. "My flower is {colour}."',
              f'"[It is lovely|Well done]," said {elder}. "Keep it {spot}, where it likes to be."']
    return t.tell(*lines)


def feeling(t):
    """A feeling, its cause, and its cure."""
    one, two = t.people(2)
    thing = t.things(1)[0]
    mood, cause, cure = t.pick([
        ("sad", f"{one.his} {thing} was broken", f"mended the {thing}"),
        ("hungry", "there was no bread at home", f"shared {t.pick(FRUITS)} with {one.him}"),
        ("scared", "there was a loud noise outside", f"lit a lamp and held {one.his} hand"),
        ("tired", f"{one.he} had worked all day", f"made {one.him} a warm bed"),
        ("cold", f"{one.he} had no coat", f"gave {one.him} {a(t.pick(COLOURS))} scarf"),
        ("angry", f"somebody took {one.his} {thing}", f"found the {thing} and gave it back")])
    after = {"sad": "glad", "hungry": "full", "scared": "brave", "tired": "rested", "cold": "warm",
             "angry": "calm"}[mood]
    return t.tell(
        f"{one} was [very |so |]{mood}, because {cause}.",
        f'"Why are you {mood}, {one}?" asked {two}.',
        f'{one} told {two.him} [everything|what had happened]. "I can help you," said {two}.',
        f"Then {two} {cure}.",
        f"Soon {one} was not {mood} any more. {one.he} was {after}.",
        f"Why was {one} {mood}? Because {cause}." if t.maybe() else
        f"What did {two} do? {two.he} {cure}.",
        f'"[Thank you|You are a good friend], {two}," said {one}.')


# A kind named twice is drawn twice as often: those that need the most of what was said before.
KINDS = [where_is, where_is, where_is, lost, pets, pets, weather, giving, sharing, counting,
         calendar, week, recipe, deciding, letter, riddle, journey, shopping, trading, trading,
         comparing, hiding, painting, working, growing, feeling]


def documents(seed, size_bytes, taken):
    """New documents of size_bytes in all, none of them in `taken`, which they join."""
    teller, size = Teller(random.Random(seed)), 0
    while size < size_bytes:
        text = teller.pick(KINDS)(teller)
        if text not in taken:
            taken.add(text)
            size += len(text) + len(END) + 2
            yield text


def write(path, texts):
    """The file's bytes depend on the texts only: no name and no time in the gzip header."""
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for text in texts:
            file.write(f"{text}\n{END}\n".encode())
    print(f"{path}: {pathlib.Path(path).stat().st_size} bytes compressed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train-bytes", type=int, default=6_000_000)
    parser.add_argument("--valid-bytes", type=int, default=200_000)
    args = parser.parse_args()
    taken = set()
    write(args.out / "valid.txt.gz", documents(args.seed + 1, args.valid_bytes, taken))
    write(args.out / "train.txt.gz", documents(args.seed, args.train_bytes, taken))


if __name__ == "__main__":
    main()
