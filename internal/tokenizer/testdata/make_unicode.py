"""Writes ../unicode.bin.gz: the character data that Hugging Face tokenizers itself uses.

The engine mixes several Unicode versions (Oniguruma's for the regular expressions, Rust's for
Digits, Lowercase and white space, the regex crate's for Whitespace and single_word, a normalization
crate's own), none of which is the version of Go's unicode package.  So every set is read out of the
running engine by probing all code points, and the Go package uses these sets only.

    python make_unicode.py        (needs the package tokenizers)

Format, gzip-compressed, all numbers unsigned varints:
  sets:   count, then per set: name length, name, number of ranges, then per range the gap from the
          end of the previous range and the length
  folds:  count, then per group of characters equal under (?i): size, members as differences
  multi:  count, then per sequence that (?i) makes equal to one character: size, members, the character
  lower:  count, then per character whose lower case differs: difference, size, members
"""

import gzip
import os
import sys

from tokenizers import Regex, normalizers, pre_tokenizers

SURROGATES = range(0xD800, 0xE000)
ALL = [c for c in range(0x110000) if c not in SURROGATES]
TEXT = "".join(map(chr, ALL))

POSIX = "alnum alpha blank cntrl digit graph lower print punct space upper xdigit word ascii".split()
CATEGORIES = (
    "Cc Cf Cn Co Ll Lm Lo Lt Lu Mc Me Mn Nd Nl No Pc Pd Pe Pf Pi Po Ps Sc Sk Sm So Zl Zp Zs".split()
)
PROPERTIES = """Alphabetic ASCII_Hex_Digit Bidi_Control Case_Ignorable Cased Changes_When_Casefolded
Changes_When_Casemapped Changes_When_Lowercased Changes_When_Titlecased Changes_When_Uppercased Dash
Default_Ignorable_Code_Point Diacritic Emoji Emoji_Component Emoji_Modifier Emoji_Modifier_Base
Emoji_Presentation Extended_Pictographic Extender Grapheme_Base Grapheme_Extend Hex_Digit ID_Continue
ID_Start Ideographic Join_Control Lowercase Math Noncharacter_Code_Point Pattern_Syntax
Pattern_White_Space Quotation_Mark Radical Regional_Indicator Sentence_Terminal Soft_Dotted
Terminal_Punctuation Unified_Ideograph Uppercase Variation_Selector White_Space XID_Continue
XID_Start""".split()
SCRIPTS = """Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak
Bengali Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian
Caucasian_Albanian Chakma Cham Cherokee Chorasmian Common Coptic Cuneiform Cypriot Cypro_Minoan
Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic
Garay Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Gurung_Khema Han
Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited
Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li
Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi Kirat_Rai Lao Latin Lepcha Limbu Linear_A
Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaram_Gondi
Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro
Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong
Ogham Ol_Chiki Ol_Onal Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian
Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau
Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada Shavian Siddham
SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Sunuwar Syloti_Nagri Syriac Tagalog
Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh
Tirhuta Todhri Toto Tulu_Tigalari Ugaritic Unknown Vai Vithkuqi Wancho Warang_Citi Yezidi Yi
Zanabazar_Square""".split()


def ranges(members):
    """Sorted code points as a list of (first, last)."""
    out = []
    for c in members:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return [(a, b) for a, b in out]


def regex_set(pattern):
    """The code points that one Oniguruma character pattern matches."""
    split = pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed", invert=True)
    members = []
    for _, (a, b) in split.pre_tokenize_str(TEXT):
        members += ALL[a:b]
    return ranges(members)


def isolated_set(pre_tokenizer):
    """The code points that a pre-tokenizer cuts off from neighbouring letters as a piece."""
    text = "a" + "a".join(map(chr, ALL)) + "a"
    members = []
    for piece, (a, b) in pre_tokenizer.pre_tokenize_str(text):
        if b - a == 1 and a % 2 == 1:
            members.append(ord(piece))
    return ranges(members)


def removed_set(pre_tokenizer):
    """The code points that a pre-tokenizer removes."""
    text = "a" + "a".join(map(chr, ALL)) + "a"
    kept = bytearray(len(text))
    for _, (a, b) in pre_tokenizer.pre_tokenize_str(text):
        kept[a:b] = b"\x01" * (b - a)
    return ranges(c for i, c in enumerate(ALL) if not kept[2 * i + 1])


def each(normalizer, strings):
    """Normalizes each string; a line feed never interacts with its neighbours."""
    strings = [s for s in strings if "\n" not in s]
    out = normalizer.normalize_str("\n".join(strings)).split("\n")
    assert len(out) == len(strings)
    return dict(zip(strings, out))


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def main():
    sets = {}
    # Outside a character class \w takes some more characters below U+0100 than inside one.
    sets["\\w"] = regex_set(r"\w")
    for name in POSIX:
        sets["[:" + name + ":]"] = regex_set(f"[[:{name}:]]")
        # As a property, punct is the general category and not the POSIX class.
        expected = regex_set(r"\p{P}") if name == "punct" else sets["[:" + name + ":]"]
        assert regex_set(r"[\p{%s}]" % name) == expected, name
        assert regex_set(r"\p{%s}" % name) == (sets["\\w"] if name == "word" else expected), name
    for escape, name in (("w", "word"), ("d", "digit"), ("s", "space"), ("h", "xdigit")):
        assert sets["[:" + name + ":]"] == regex_set("[\\" + escape + "]"), escape
        assert escape == "w" or sets["[:" + name + ":]"] == regex_set("\\" + escape), escape
    for name in CATEGORIES + PROPERTIES + SCRIPTS:
        sets[name] = regex_set(r"\p{%s}" % name)
        print(name, len(sets[name]), file=sys.stderr)
    # Every code point but the surrogates has one general category.
    seen = [c for n in CATEGORIES for a, b in sets[n] for c in range(a, b + 1)]
    assert sorted(seen) == ALL

    sets["rust:numeric"] = isolated_set(pre_tokenizers.Digits(individual_digits=True))
    sets["rust:punctuation"] = isolated_set(pre_tokenizers.Punctuation())
    sets["rust:white_space"] = removed_set(pre_tokenizers.WhitespaceSplit())
    crate = pre_tokenizers.Whitespace()
    space = removed_set(crate)
    assert space == sets["rust:white_space"]
    other = {c for a, b in space + isolated_set(crate) for c in range(a, b + 1)}
    sets["rust:word"] = ranges(c for c in ALL if c not in other)

    chars = list(TEXT)
    nfd = each(normalizers.NFD(), chars)
    nfkd = each(normalizers.NFKD(), chars)
    sets["nfd:decomposes"] = ranges(ord(c) for c in chars if nfd.get(c, c) != c)
    sets["nfkd:decomposes"] = ranges(ord(c) for c in chars if nfkd.get(c, c) != c)
    # A mark of class 1 moves before any mark of a higher class, and any mark before one of class 240.
    still = [c for c in chars if nfd.get(c, c) == c]
    low = each(normalizers.NFD(), [c + "\u0334" for c in still])
    high = each(normalizers.NFD(), ["\u0345" + c for c in still])
    sets["nfd:marks"] = ranges(
        ord(c) for c in still
        if c == "\u0345" or low.get(c + "\u0334", "\u0334")[0] != c[0] and c != "\n"
        or high.get("\u0345" + c, "\u0345")[0] != "\u0345"
    )

    cased = sorted({c for n in ("Changes_When_Casemapped", "Changes_When_Casefolded")
                    for a, b in sets[n] for c in range(a, b + 1)})
    text = "\n".join(map(chr, cased))
    groups = set()
    for c in cased:
        split = pre_tokenizers.Split(Regex(r"(?i:\x{%x})" % c), "removed", invert=True)
        group = tuple(sorted(ord(s) for s, _ in split.pre_tokenize_str(text) if len(s) == 1))
        assert c in group, hex(c)
        if len(group) > 1:
            groups.add(group)
    flat = [c for g in groups for c in g]
    assert len(flat) == len(set(flat)), "folding is not an equivalence"
    multi = []
    for c in cased:
        s = chr(c).casefold()
        if len(s) == 1:
            continue
        split = pre_tokenizers.Split(Regex(r"\A(?i:\x{%x})\z" % c), "removed", invert=True)
        if split.pre_tokenize_str(s):
            multi.append((tuple(map(ord, s)), c))
        else:
            print("no multi-character folding in the engine: %x" % c, file=sys.stderr)

    lower = each(normalizers.Lowercase(), chars)
    lower = [(ord(c), s) for c, s in lower.items() if c != s]

    out = bytearray()
    out += varint(len(sets))
    for name in sorted(sets):
        out += varint(len(name)) + name.encode() + varint(len(sets[name]))
        end = 0
        for a, b in sets[name]:
            out += varint(a - end) + varint(b - a)
            end = b + 1
    out += varint(len(groups))
    for g in sorted(groups):
        out += varint(len(g))
        last = 0
        for c in g:
            out += varint(c - last)
            last = c
    out += varint(len(multi))
    for s, c in sorted(multi):
        out += varint(len(s)) + b"".join(map(varint, s)) + varint(c)
    out += varint(len(lower))
    last = 0
    for c, s in sorted(lower):
        out += varint(c - last) + varint(len(s)) + b"".join(varint(ord(x)) for x in s)
        last = c
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unicode.bin.gz")
    with open(path, "wb") as f:
        f.write(gzip.compress(bytes(out), 9, mtime=0))
    print(len(sets), "sets,", len(groups), "folds,", len(multi), "multi,", len(lower), "lower,",
          len(out), "bytes,", os.path.getsize(path), "compressed", file=sys.stderr)


main()
