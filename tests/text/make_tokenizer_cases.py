#!/usr/bin/env python3
"""Writes data/tokenizer_cases.json: what the Hugging Face tokenizers package makes of small
tokenizer.json files, one per component or combination. augur_tokenizer_test compares.

usage: make_tokenizer_cases.py     needs `pip install tokenizers` (written with 0.23.3)

Encoding cases of normalizers, pre-tokenizers and added tokens use a model whose tokens are the 256
bytes and that ends every word with "|": so the ids spell the normalized text and its words.
`spelled` is that text; added tokens stand in it as [id].
"""
import json
import pathlib
import random

from tokenizers import Tokenizer

TEXTS = [
    "", " ", "   ", "\n", "a", "Hello, world!", "  two  spaces ", "the-final--countdown", "-a-", "--",
    "It's 12 o'clock; I'M at №5½ x²", "tab\tnew\nline\r\nend  ", "٣٤٥ and १२३ ④ Ⅷ",
    "École e\u0301cole \u1e9b\u0323 \u212b \ufb01ne ａＢＣ ｶﾞ ㌀", "ÀÉ İSTANBUL ΑΣ ǅ ẞ \U00010400",
    "한국어 \u1112\u1161\u11ab", "日本語、テキスト。123", "a\u0327\u0301\u0316 q\u0307\u0323 \u0301x", "नमस्ते ๆไทย",
    "\u00a0nbsp\u2003em\u3000wide\u180eold\u200bzero\u0085nel", "🙂👩\u200d👩\u200d👧 flag🇫🇷", "$5.00+tax=<b>~`^|", "“quoted” – dash…",
    "_under_score __x", "▁already▁there ▁ x", "x▁", "aaa bbb  aaab", "\x00\x01\x7f", "snake_case CamelCase ALLCAPS",
    "http://a.b/c?d=e&f#g", "e\u0301\u0301\u0301", "\u017fS \u212aK", "xxaxxbx", "beef deaf 0xBEEF", "straße STRASSE",
]

BYTES = {f"<0x{b:02X}>": b for b in range(256)}


def model(**changes):
    result = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
              "ignore_merges": False, "vocab": {}, "merges": []}
    result.update(changes)
    return result


def tokenizer(**parts):
    result = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
              "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
              "model": model(vocab=BYTES, byte_fallback=True, end_of_word_suffix="|")}
    result.update(parts)
    return result


def added(first_id, *tokens):
    result = []
    for i, (content, *flags) in enumerate(tokens):
        token = {"id": first_id + i, "content": content, "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": False, "special": False}
        token.update({flag: True for flag in flags})
        result.append(token)
    return result


def spell(ids):
    spelled = bytearray()
    for i in ids:
        spelled += bytes([i]) if i < 256 else f"[{i}]".encode()
    return spelled.decode()


cases = []


def add_spelled(name, texts=TEXTS, **parts):
    content = tokenizer(**parts)
    reference = Tokenizer.from_str(json.dumps(content))
    cases.append({"name": name, "tokenizer": content, "spelled": [
        [text, spell(reference.encode(text, add_special_tokens=False).ids)] for text in texts]})


def add_encoded(name, texts, **parts):
    content = tokenizer(**parts)
    reference = Tokenizer.from_str(json.dumps(content))
    cases.append({"name": name, "tokenizer": content, "encoded": [
        [text, reference.encode(text).ids, reference.encode(text, add_special_tokens=False).ids]
        for text in texts]})


def add_decoded(name, sequences, **parts):
    content = tokenizer(**parts)
    reference = Tokenizer.from_str(json.dumps(content))
    cases.append({"name": name, "tokenizer": content, "decoded": [
        [ids, reference.decode(ids, skip_special_tokens=True),
         reference.decode(ids, skip_special_tokens=False)] for ids in sequences]})


def normalizer_cases():
    def sequence(*items):
        return {"type": "Sequence", "normalizers": list(items)}
    prepend = {"type": "Prepend", "prepend": "▁"}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        add_spelled(f"normalizer {form}", normalizer={"type": form})
    add_spelled("normalizer Lowercase", normalizer={"type": "Lowercase"})
    for left in (True, False):
        for right in (True, False):
            add_spelled(f"normalizer Strip {left} {right}", normalizer={
                "type": "Strip", "strip_left": left, "strip_right": right})
    add_spelled("normalizer Prepend", normalizer=prepend)
    add_spelled("normalizer Prepend and Replace", normalizer=sequence(prepend, spaces))
    add_spelled("normalizer Replace with a regex", normalizer={
        "type": "Replace", "pattern": {"Regex": r"\s{2,}|\d+"}, "content": "#"})
    add_spelled("normalizer Replace by nothing", normalizer={
        "type": "Replace", "pattern": {"String": "a"}, "content": ""})
    add_spelled("normalizer Replace where empty matches count", normalizer={
        "type": "Replace", "pattern": {"Regex": "x*"}, "content": "-"})
    add_spelled("normalizer Sequence", normalizer=sequence(
        {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": True,
                                                  "strip_right": True}, prepend))


def pre_tokenizer_cases():
    behaviors = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")

    def split(pattern, behavior="Isolated", invert=False):
        return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}

    def sequence(*items):
        return {"type": "Sequence", "pretokenizers": list(items)}

    def metaspace(**fields):
        return {"type": "Metaspace", "replacement": "▁", **fields}

    def byte_level(add_prefix_space, use_regex):
        return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True,
                "use_regex": use_regex}

    few = TEXTS[:14] + TEXTS[-4:]
    for behavior in behaviors:
        for invert in (False, True):
            add_spelled(f"Split by a string, {behavior}, invert {invert}", few,
                        pre_tokenizer=split({"String": "-"}, behavior, invert))
            add_spelled(f"Split by a regex, {behavior}, invert {invert}", few,
                        pre_tokenizer=split({"Regex": r"\d|\s|x+"}, behavior, invert))
        add_spelled(f"Punctuation {behavior}", few + TEXTS[20:24],
                    pre_tokenizer={"type": "Punctuation", "behavior": behavior})
    for prefix in (False, True):
        for regex in (False, True):
            add_spelled(f"ByteLevel prefix {prefix} regex {regex}", few,
                        pre_tokenizer=byte_level(prefix, regex))
    for individual in (False, True):
        add_spelled(f"Digits individual {individual}",
                    pre_tokenizer={"type": "Digits", "individual_digits": individual})
    for scheme in ("always", "first", "never"):
        for splits in (True, False):
            add_spelled(f"Metaspace {scheme}, split {splits}",
                        pre_tokenizer=metaspace(prepend_scheme=scheme, split=splits))
    add_spelled("Metaspace of old", few, pre_tokenizer=metaspace(add_prefix_space=True))
    for scheme in ("always", "first"):
        add_spelled(f"Metaspace {scheme} after added tokens",
                    ["a b", "<t> a b<t>c d<t>", " a<t> b", "<t>", "<t><t>x"],
                    pre_tokenizer=metaspace(prepend_scheme=scheme),
                    added_tokens=added(256, ("<t>",)))
    add_spelled("Metaspace first after Strip", pre_tokenizer=metaspace(prepend_scheme="first"),
                normalizer={"type": "Strip", "strip_left": True, "strip_right": False})
    add_spelled("Whitespace", pre_tokenizer={"type": "Whitespace"})
    add_spelled("WhitespaceSplit", pre_tokenizer={"type": "WhitespaceSplit"})
    add_spelled("Whitespace, then Digits", few, pre_tokenizer=sequence(
        {"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}))
    add_spelled("Metaspace, then Punctuation", few, pre_tokenizer=sequence(
        metaspace(prepend_scheme="always"), {"type": "Punctuation", "behavior": "Isolated"}))
    add_spelled("Split, then Metaspace first", few, pre_tokenizer=sequence(
        split({"Regex": r"\S+"}), metaspace(prepend_scheme="first")))
    add_spelled("ByteLevel, then Digits", few, pre_tokenizer=sequence(
        byte_level(False, True), {"type": "Digits", "individual_digits": True}))
    add_spelled("ByteLevel twice", few, pre_tokenizer=sequence(
        byte_level(False, False), byte_level(True, True)))
    add_spelled("Split, then ByteLevel with prefix", few, pre_tokenizer=sequence(
        split({"Regex": r"\d{1,3}|\S+"}), byte_level(True, False)))


# Each shows one thing of the regular-expression dialect; the first group runs as an automaton.
REGEXES = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\w+", r"\W", r"\d+", r"\D+", r"\s", r"\S+", r"[\w-]+", r"[^\w\s]", r"[\W]+", "", "x*", "x+?", "a??b", r"(?i:[sk])",
    r"\p{Lu}(?=\p{Ll})", r".", r"[a-c]{2,}", r"(ab|a)(c|bcd)?", r"[a-z&&[^aeiou]]+", r"[[aeiou][0-9]]",
    r"\x{e9}|\u00e8|\x2d", r"\P{L}", r"\p{^L}+", r"[^\S\n]+", r"a{0}b|c{2}", r"[\-\_x]",
    # These run on PCRE2.
    r"\h+", r"\H+", r"(?<=a)b|(?<!a)b", r"^.", r".$", r"\p{Han}+", r"\p{Greek}", r"\p{N}{1,3}+", r"a{1,2}+b", r"x{,2}",
    r"(?i)k|stra", r"(?m:.+)", r"x++", r" ?+\p{L}++", r"(a|b)\1", r"\bthe\b|\bx", r"\Bx|\be", r"[[:punct:][:digit:]]+|[[:word:]]", r"é{1,2}+|(?:é)x", r"a{x|a{",
    r"(?:a|b|c|d|-)+", r"(?=ab)a|\Ax|x\z", r"(?>x+)x|y", r"\R",
]


def regex_cases():
    for regex in REGEXES:
        add_spelled(f"regex {regex}", TEXTS[:10] + TEXTS[10:22:3] + TEXTS[26:], pre_tokenizer={
            "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False})


def added_token_cases():
    tokens = added(
        256, ("<s>", "special"), ("<s>x",), ("word", "single_word"), ("<l>", "lstrip"),
        ("<r>", "rstrip"), ("<lr>", "lstrip", "rstrip", "special"), ("Norm", "normalized"),
        ("two words", "normalized", "single_word"), ("é",), ("  ",), ("ab",), ("abcd",), ("bc",))
    texts = [
        "<s>", "<s>x<s>y", "a <s> b", "word", "a word here", "sword words word_ word", "words,word.word",
        "a  <l>  b", "<l><l>", "a\n\t<l>b", "a  <r>  b", "<r> <r>  <l> <l>", "x <lr> y  <lr>  ", "Norm norm NORM",
        "aNormb", "two words", "Two Words two  words", "twowords two wordsx", "caf\u00e9 cafe\u0301", "a    b   c",
        "abcd abc ab bcd", "abab", "<s", "s><s>>", "", " <lr>", "日word本 éword\u200dx word²", "<r>  <l>",
        "<r>  x", "<r>    <s>"]
    for name, normalizer in (
            ("no normalizer", None), ("Lowercase", {"type": "Lowercase"}), ("NFC", {"type": "NFC"}),
            ("Prepend and Replace", {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})):
        add_spelled(f"added tokens, {name}", texts, added_tokens=tokens, normalizer=normalizer)
    letters = {c: i for i, c in enumerate("abcdefgh<>s ")}
    add_decoded("added tokens, decoding", [[0, 12, 1], [12, 13, 14], [14, 0, 99, 3]],
                model=model(vocab=letters), normalizer={"type": "Lowercase"}, added_tokens=added(
                    12, ("<s>", "special"), ("ABC", "normalized"), ("Keep",)))


def bpe_cases():
    letters = {c: i for i, c in enumerate("abcdeé ")}
    vocab = {**letters, "ab": 7, "bc": 8, "abc": 9, "aa": 10, "aaa": 11, "cd": 12, "abcd": 13, "<unk>": 14,
             "dd": 15, "abab": 16}
    merges = [["a", "b"], ["b", "c"], ["a", "bc"], ["ab", "c"], ["a", "a"], ["aa", "a"], ["c", "d"],
              ["ab", "cd"], ["d", "d"], ["ab", "ab"]]
    texts = ["", "a", "abc", "abcd", "abcabcd", "aaaa", "aaaaaaa", "bcd", "x", "xx", "axxb", "éaxéx", "abc abc xyz",
             "ddddd", "abababab" * 9, "abcdé" * 12, "aabbccdd" * 9 + "xx" + "abcd" * 9, "x" * 30 + "a" * 30,
             "abc " * 20]
    for changes in ({}, {"unk_token": "<unk>"}, {"unk_token": "<unk>", "fuse_unk": True},
                    {"ignore_merges": True}, {"dropout": 0.0}):
        add_encoded(f"BPE {changes}", texts, model=model(vocab=vocab, merges=merges, **changes))
    add_encoded("BPE with merges as strings", texts,
                model=model(vocab=vocab, merges=[" ".join(m) for m in merges]))
    add_encoded("BPE with a merge given twice", texts,
                model=model(vocab=vocab, merges=merges + [["a", "b"]]))
    add_encoded("BPE ignore_merges takes unreachable words", ["abd", "abdabd", "dba"],
                model=model(vocab={**vocab, "abd": 17}, merges=merges, ignore_merges=True),
                pre_tokenizer={"type": "Digits", "individual_digits": True})
    some_bytes = {**vocab, "<0x78>": 17, "<0xC3>": 18, "<0xA9>": 19, "<0xA8>": 20}
    fallback = ["x", "axb", "yxy", "yyxéèz", "ÿxè", "日x"]
    add_encoded("BPE byte_fallback", texts + fallback, model=model(
        vocab=some_bytes, merges=merges, byte_fallback=True, unk_token="<unk>"))
    add_encoded("BPE byte_fallback, fused", texts + fallback, model=model(
        vocab=some_bytes, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    add_encoded("BPE byte_fallback without unk", texts + fallback, model=model(
        vocab=some_bytes, merges=merges, byte_fallback=True))
    affixed = {"a": 0, "b": 1, "c": 2, "##a": 3, "##b": 4, "##c": 5, "ab": 6, "##bc": 7, "abc": 8, "##ab": 9}
    add_encoded("BPE continuing_subword_prefix", ["a", "ab", "abc", "abab", "cabc", "xab", "abx", "bcabc"], model=model(
        vocab=affixed, merges=[["a", "##b"], ["##b", "##c"], ["ab", "##c"], ["##a", "##b"]],
        continuing_subword_prefix="##"))
    ended = {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab": 4, "ab</w>": 5, "abab</w>": 6, "!</w>": 7}
    add_encoded("BPE end_of_word_suffix", ["a", "ab", "abab", "ab ab!", "aba b", "!!", "ab" * 20], model=model(
        vocab=ended, merges=[["a", "b"], ["a", "b</w>"], ["ab", "ab</w>"]], end_of_word_suffix="</w>"),
        pre_tokenizer={"type": "Whitespace"})
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    stand_ins = {c: i for i, c in enumerate("abcĠÃ©")}
    more = {**stand_ins, "ab": 6, "Ġa": 7, "Ã©": 8, "Ġab": 9, "cab": 10, "<|x|>": 11}
    byte_texts = ["ab ab", "é", " éa", "cab", "ab\nab", "xaby", "abé" * 12, "<|x|>"]
    for changes in ({}, {"unk_token": "<|x|>"}, {"ignore_merges": True}):
        add_encoded(f"byte-level BPE with a partial alphabet {changes}", byte_texts, pre_tokenizer=byte_level,
                    model=model(vocab=more, merges=[["a", "b"], ["Ġ", "a"], ["Ã", "©"], ["Ġ", "ab"]], **changes))


def post_processor_cases():
    letters = {"a": 0, "b": 1}
    tokens = added(2, ("<s>", "special"), ("</s>", "special"), ("<x>", "special"))

    def template(single, *names):
        return {"type": "TemplateProcessing", "single": single, "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": ids, "tokens": ["<s>"] * len(ids)}
                               for name, ids in names}}

    def special(name):
        return {"SpecialToken": {"id": name, "type_id": 0}}

    text = {"Sequence": {"id": "A", "type_id": 0}}
    begin = template([special("<s>"), text], ("<s>", [2]))
    both = template([special("s"), special("x"), text, special("e")], ("s", [2]), ("x", [4, 4]), ("e", [3]))
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    for name, processor in (
            ("TemplateProcessing before", begin), ("TemplateProcessing around", both), ("ByteLevel", byte_level),
            ("Sequence", {"type": "Sequence", "processors": [byte_level, begin]})):
        add_encoded(f"post-processor {name}", ["", "a", "ab<x>", "<s>a"], post_processor=processor,
                    added_tokens=tokens, model=model(vocab=letters))


def decoder_cases():
    pieces = ["▁Hello", "▁", "▁▁", "lo", "▁wor▁ld", " ", "  a ", "é", "日", "🙂", "<0x0A>", "<0xE4>", "<0xBD>", "<0xA0>", "<0xFF>",
              "<0x41>", "<0xf0>", "<0x4G>", "Ġthe", "Ċ", "ä", "½", "ł", "Ã", "©", "ð", "Ł", "ĻĤ", "Ńy", "ĠĠ", "á", "xx", "x", "a▁",
              "▁▁▁x"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokens = added(len(pieces), ("<s>", "special"), ("<▁t> ▁",), ("<｜e｜>", "special"), ("Ġadded word",))
    generator = random.Random(7)
    sequences = [[], [0], [1], [2, 0], [35, 0, 4], [11, 12, 13], [11, 12], [12, 13, 0], [11, 12, 13, 14, 0], [16, 10, 0],
                 [20, 21, 22], [20, 21], [20, 18], [25, 26, 27], [25, 26, 18], [30, 30, 20, 21, 22], [99, 0, -1 % 77]]
    sequences += [[generator.randrange(len(pieces) + 5) for _ in range(generator.randrange(1, 12))]
                  for _ in range(30)]
    # Few kinds of tokens, so that runs of bytes and stand-ins come up.
    sequences += [[generator.choice((10, 11, 12, 13, 14, 15, 0)) for _ in range(8)] for _ in range(12)]
    sequences += [[generator.choice((20, 21, 22, 23, 24, 25, 26, 27, 30)) for _ in range(8)] for _ in range(20)]

    def sequence(*items):
        return {"type": "Sequence", "decoders": list(items)}

    def replace(pattern, content):
        return {"type": "Replace", "pattern": pattern, "content": content}

    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    fallback = {"type": "ByteFallback"}
    fuse = {"type": "Fuse"}
    spaces = replace({"String": "▁"}, " ")

    def strip(content, start, stop):
        return {"type": "Strip", "content": content, "start": start, "stop": stop}

    def metaspace(scheme):
        return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}

    for name, decoder in (
            ("none", None), ("ByteLevel", byte_level), ("ByteFallback", fallback), ("Fuse", fuse),
            ("Metaspace always", metaspace("always")), ("Metaspace first", metaspace("first")),
            ("Metaspace never", metaspace("never")), ("Replace", spaces),
            ("Replace with a regex", replace({"Regex": "▁+|x"}, "_")), ("Strip 1 0", strip(" ", 1, 0)),
            ("Strip of another character", strip("▁", 2, 0)),
            ("Llama 2", sequence(spaces, fallback, fuse, strip(" ", 1, 0))),
            ("ByteFallback, Metaspace", sequence(fallback, metaspace("always"))),
            ("Fuse, Metaspace", sequence(fuse, metaspace("always"))),
            ("Fuse, Replace", sequence(fuse, replace({"String": "xx"}, "y"))),
            ("Fuse, Replace with a regex", sequence(fuse, replace({"Regex": "x+"}, "y"))),
            ("ByteLevel, Strip", sequence(byte_level, strip(" ", 2, 0))),
            ("ByteLevel, Replace", sequence(byte_level, replace({"String": "the"}, "a")))):
        add_decoded(f"decoder {name}", sequences, decoder=decoder, added_tokens=tokens,
                    model=model(vocab=vocab))
    # The reference stops with an error when a token is shorter than `stop`.
    long_tokens = [s for s in ([6, 6], [6, 29], [34, 6, 6, 0], [34, 34, 34])]
    add_decoded("decoder Strip 1 1", long_tokens, decoder=strip(" ", 1, 1), added_tokens=tokens,
                model=model(vocab=vocab))
    add_decoded("decoder Fuse, Strip 1 2", long_tokens, decoder=sequence(fuse, strip(" ", 1, 2)),
                added_tokens=tokens, model=model(vocab=vocab))


def main():
    normalizer_cases()
    pre_tokenizer_cases()
    regex_cases()
    added_token_cases()
    bpe_cases()
    post_processor_cases()
    decoder_cases()
    for case in cases:  # the byte vocabulary is the same everywhere: the test fills it in
        if case["tokenizer"]["model"]["vocab"] == BYTES:
            case["tokenizer"]["model"]["vocab"] = "BYTES"
    path = pathlib.Path(__file__).parent / "data" / "tokenizer_cases.json"
    with open(path, "w", encoding="utf-8") as out:
        lines = (json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
        out.write("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(cases)} tokenizers, {path.stat().st_size} bytes: {path}")


if __name__ == "__main__":
    main()
