"""English sentence plans, by style: what is said first, and how the rest hangs on it.

`split` sentences have a verb of speaking with manner, a voice with adjectives and a tail;
`list` sentences name the marks of the voice; `fact` sentences state them.
"""

FRAMES = {
    "split": (
        "{a_person} {speaks}[ {manner}][ in a {voice} voice][, {tail}],"
        " (sounding {pred}|{and_sounds} {pred}|{full_of} {noun})",
        "{a_person} {speaks}[ {manner}][ in a {voice} voice] {and_sounds} {pred}[, {tail}]",
        "{a_person} {speaks} {adv}[, {manner}][ in a {voice} voice][, {tail}]",
        "{the_person} {speaks} {adv}[ and {manner}], {her} voice {voice_is}[, {tail}]",
        "{the_person} sounds {pred}, {speaking} {manner}[ in a {voice} voice][, {tail}]",
        "{the_person} sounds {pred}, {speaking} in a {voice} voice[, {tail}]",
        "{the_person} sounds {pred} (as|when|while) {she speak} {manner}"
        "[ in a {voice} voice][, {tail}]",
        "sounding {pred}, {a_person} {speaks}[ {manner}][ in a {voice} voice][, {tail}]",
        "{noun} {shows} in {persons}[ {voice}] voice[ as {she speak} {manner}][, {tail}]",
        "(there is|you can hear|one hears|we hear) {noun} in {persons}[ {voice}] voice"
        "[, and {she speak} {manner}][, {tail}]",
        "in a {voice} voice[, {tail}], {a_person} {speaks}[ {manner}] {and_sounds} {pred}",
        "{speaking} {manner}[ in a {voice} voice][, {tail}], {a_person} sounds {pred}",
        "{speaking} {manner}[ in a {voice} voice], {a_person} lets {her} {noun} show[, {tail}]",
        "{persons} voice is {voice_is}[, {tail}], and {she sound} {pred}[ as {she speak} {manner}]",
        "{persons} voice is {voice_is} (with|and full of|and filled with) {noun}"
        "[ as {she speak} {manner}][, {tail}]",
        "{a_person} who (sounds|seems|is audibly|is evidently) {pred} {speaks}[ {manner}]"
        "[ in a {voice} voice][, {tail}]",
        "{a_person} with a {voice} voice sounds {pred}[ and {speaks} {manner}][, {tail}]",
        "{persons_voice} is {voice_is} and sounds {pred}[, the words spoken {manner}][, {tail}]",
        "{persons_voice} sounds {pred}[, the words spoken {manner}][, {tail}]",
        "(this is|here speaks|we hear|one hears) a {adj} {person}[ {speaking} {manner}]"
        "[ in a {voice} voice][, {tail}]",
        "a {adj} {person} {speaks}[ {manner}][ in a {voice} voice][, {tail}]",
        "{full_of} {noun}, {a_person} {speaks}[ {manner}][ in a {voice} voice][, {tail}]",
        "with {noun} in {her}[ {voice}] voice, {a_person} {speaks}[ {manner}][, {tail}]",
        "{the_person} {speaks}[ {manner}] in a {adj} {tone}[, {her} voice {voice_is}][, {tail}]",
        "a {adj} {gendered}voice (is heard|is speaking|speaks|talks)[ {manner}][, {tail}]",
        "it sounds as (if|though) {the_person} is {pred}, {speaking} {manner}[ in a {voice} voice]"
        "[, {tail}]",
        "{the_person} {must_be} {pred}, for {she speak}[ {manner}] in a {voice} voice[, {tail}]",
        "{the_person} {must_be} {pred}, for {she speak} {manner}[ in a {voice} voice][, {tail}]",
        "{the_person} {speaks} {manner}[ in a {voice} voice][, {tail}]; {she sound} {pred}",
        "{the_person} {speaks} in a {voice} voice[, {tail}]; {she sound} {pred}",
        "{the_person} (is|sounds|seems) {pred} and {speaks} {manner}"
        "[ in a {voice} voice][, {tail}]",
        "the words come from a {adj} {person}[ with a {voice} voice][, spoken {manner}][, {tail}]",
        "{tail}, {the_person} sounds {pred}[ and {speaks} {manner}][ in a {voice} voice]",
        "{persons} {adj} (mood|state of mind) can be heard in every word"
        "[, spoken {manner}][, {tail}]",
        "{from_the_way} that {she be} {pred}",
        "the {noun} of the {person} (can be heard|comes through|is audible) in every word",
        "every word that {the_person} {says} (is full of|is filled with|lets us hear) {noun}",
        "(it is easy|it is not hard) to hear the {noun} in {persons} voice",
        "(the sentence is|these words are) spoken by a {person} who (sounds|seems|is) {pred}",
    ),
    "list": (
        "with {marks}, {the_person} {sounds} {pred}",
        "{the_person} {speaks} with {marks} {and_sounds} {pred}",
        "{the_person} {sounds} {pred}, (speaking with|talking with|with) {marks}",
        "{marks} can be heard in the voice of a {adj} {person}",
        "(there is|one hears|we hear|you can hear) {noun} in {persons} voice, {along_with} {marks}",
        "{persons} (way of speaking|manner of speech|speech) has {marks}, and {she sound} {pred}",
        "a {adj} {person} {speaks} with {marks}",
        "(we hear|one hears|there is) {marks} from a {adj} {person}",
        "{a_person} {speaks} {adv}, with {marks}",
        "{speaking} with {marks}, {a_person} {sounds} {pred}",
        "{marks}: (this is|here speaks) a {adj} {person}",
        "{the_person} (has|speaks with) {marks}[,] and sounds {pred}",
        "{noun} is in {persons} voice, {along_with} {marks}",
    ),
    "fact": (
        "{facts}, and {the_person} {sounds} {pred}",
        "{the_person} {sounds} {pred}: {facts}",
        "{the_person} {sounds} {pred}; {facts}",
        "{a_person} {speaks} {adv}; {facts}",
        "{persons_voice} sounds {pred}, (and|while) {facts}",
        "{noun} {shows} when {the_person} {speaks}; {facts}",
        "while {facts}, {the_person} {sounds} {pred}",
        "(this is|here speaks|we hear|one hears) a {adj} {person}; {facts}",
        "{facts}; {a_person} is {speaking} {adv}",
        "as {she speak} {adv}, {facts}",
    ),
}

WORDS = {
    "speaks": ("speaks", "speaks", "talks", "is speaking", "is talking"),
    "speaking": ("speaking", "talking"),
    "says": ("says", "utters"),
    "sounds": ("sounds", "sounds", "seems", "is audibly", "appears to be"),
    "and_sounds": ("and sounds", "and seems", "and is evidently", "and is audibly", "and must be"),
    "must_be": ("must be", "seems to be", "appears to be", "is evidently", "is obviously"),
    "shows": ("can be heard", "is heard", "is audible", "comes through", "shows", "lies"),
    "tone": ("tone", "tone of voice", "manner", "way"),
    "along_with": ("along with", "together with", "as well as"),
    "from_the_way": (
        "from the way {the_person} (speaks|talks), (one|you) can (tell|hear)",
        "it is (easy|not hard) to hear",
        "anyone who listens to {them} will (notice|hear)",
    ),
    "is": ("is", "is", "stays", "remains"),
    "the_her": ("the", "{her}"),
    "rather": ("", "", "", "", "", "rather ", "fairly ", "quite ", "noticeably "),
    "full_of": ("full of", "filled with", "with"),
}
"""Words to pick that depend neither on the meaning nor on who speaks."""
