// Unicode's classes as the `tokenizers` library knows them, as members of a PCRE2 class: PCRE2's
// property plus the ranges that Unicode 15 to 17 added, taken from the library's own behaviour on
// all 1,112,064 characters. With a newer PCRE2 the added ranges are merely said twice.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_UNICODE_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_UNICODE_H

#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

#define NOT_SPACES                                                                                 \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{"     \
    "1fff}"                                                                                        \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{"   \
    "10ffff}"

#define NEW_LETTERS                                                                                \
    "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}"               \
    "\\x{10d4a}-\\x{10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}"         \
    "\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}" \
    "\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"          \
    "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}"         \
    "\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{"      \
    "1e4eb}"                                                                                       \
    "\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"

#define NEW_DIGITS                                                                                 \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"         \
    "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1e4f0}-\\x{1e4f9}"         \
    "\\x{1e5f1}-\\x{1e5fa}"

#define NEW_NUMBERS NEW_DIGITS "\\x{1d2c0}-\\x{1d2d3}"

#define NEW_NUMBERS_UNICODE_17 "\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}"

// Marks, digits and connectors; the new letters are word characters as well.
#define NEW_WORD_CHARS                                                                             \
    "\\x{897}\\x{cf3}\\x{ece}\\x{10d40}-\\x{10d49}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}"      \
    "\\x{11241}\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{"      \
    "113d0}"                                                                                       \
    "\\x{113d2}\\x{113e1}-\\x{113e2}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}"                    \
    "\\x{11f00}-\\x{11f01}\\x{11f03}\\x{11f34}-\\x{11f3a}\\x{11f3e}-\\x{11f42}\\x{11f50}-\\x{"     \
    "11f5a}"                                                                                       \
    "\\x{13440}\\x{13447}-\\x{13455}\\x{1611e}-\\x{16139}\\x{16d70}-\\x{16d79}"                    \
    "\\x{1ccf0}-\\x{1ccf9}\\x{1e08f}\\x{1e4ec}-\\x{1e4f9}\\x{1e5ee}-\\x{1e5ef}\\x{1e5f1}-\\x{"     \
    "1e5fa}"

#define NEW_UPPERCASE "\\x{1c89}\\x{a7cb}-\\x{a7cc}\\x{a7da}\\x{a7dc}\\x{10d50}-\\x{10d65}"

#define NEW_LOWERCASE "\\x{1c8a}\\x{a7cd}\\x{a7db}\\x{10d70}-\\x{10d85}\\x{1df25}-\\x{1df2a}"

#define NEW_MODIFIERS                                                                              \
    "\\x{10d4e}\\x{10d6f}\\x{16d40}-\\x{16d42}\\x{16d6b}-\\x{16d6c}\\x{1e030}-\\x{1e06d}"          \
    "\\x{1e4eb}"

#define NEW_OTHER_LETTERS                                                                          \
    "\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d4d}\\x{10d4f}\\x{10ec2}-\\x{10ec4}"                    \
    "\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}"          \
    "\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}"           \
    "\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}"                    \
    "\\x{16100}-\\x{1611d}\\x{16d43}-\\x{16d6a}\\x{18cff}\\x{1b132}\\x{1b155}"                     \
    "\\x{1e4d0}-\\x{1e4ea}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}"          \
    "\\x{31350}-\\x{323af}"

#define NEW_MARKS                                                                                  \
    "\\x{897}\\x{cf3}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}"                 \
    "\\x{113b8}-\\x{113c0}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113d0}"          \
    "\\x{113d2}\\x{113e1}-\\x{113e2}\\x{11f00}-\\x{11f01}\\x{11f03}\\x{11f34}-\\x{11f3a}"          \
    "\\x{11f3e}-\\x{11f42}\\x{11f5a}\\x{13440}\\x{13447}-\\x{13455}\\x{1611e}-\\x{1612f}"          \
    "\\x{1e08f}\\x{1e4ec}-\\x{1e4ef}\\x{1e5ee}-\\x{1e5ef}"

#define NEW_PUNCTUATION                                                                            \
    "\\x{1b4e}-\\x{1b4f}\\x{1b7f}\\x{10d6e}\\x{113d4}-\\x{113d5}\\x{113d7}-\\x{113d8}"             \
    "\\x{11b00}-\\x{11b09}\\x{11be1}\\x{11f43}-\\x{11f4f}\\x{16d6d}-\\x{16d6f}\\x{1e5ff}"

#define NEW_SYMBOLS                                                                                \
    "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}-\\x{31e5}\\x{31ef}"                           \
    "\\x{10d8e}-\\x{10d8f}\\x{1cc00}-\\x{1ccef}\\x{1cd00}-\\x{1ceb3}\\x{1f6dc}"                    \
    "\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-\\x{1f8bb}"                    \
    "\\x{1f8c0}-\\x{1f8c1}\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}"                    \
    "\\x{1faad}-\\x{1faaf}\\x{1fabb}-\\x{1fabf}\\x{1fac6}\\x{1face}-\\x{1facf}"                    \
    "\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}-\\x{1fae9}\\x{1faf7}-\\x{1faf8}"                    \
    "\\x{1fbcb}-\\x{1fbef}"

// Scripts in full: PCRE2's \p{Han} also holds characters that other scripts share with it (its
// Script_Extensions, since 10.40), which Oniguruma's does not.
#define HAN                                                                                        \
    "\\x{2e80}-\\x{2e99}\\x{2e9b}-\\x{2ef3}\\x{2f00}-\\x{2fd5}\\x{3005}\\x{3007}"                  \
    "\\x{3021}-\\x{3029}\\x{3038}-\\x{303b}\\x{3400}-\\x{4dbf}\\x{4e00}-\\x{9fff}"                 \
    "\\x{f900}-\\x{fa6d}\\x{fa70}-\\x{fad9}\\x{16fe2}-\\x{16fe3}\\x{16ff0}-\\x{16ff1}"             \
    "\\x{20000}-\\x{2a6df}\\x{2a700}-\\x{2b739}\\x{2b740}-\\x{2b81d}\\x{2b820}-\\x{2cea1}"         \
    "\\x{2ceb0}-\\x{2ebe0}\\x{2ebf0}-\\x{2ee5d}\\x{2f800}-\\x{2fa1d}\\x{30000}-\\x{3134a}"         \
    "\\x{31350}-\\x{323af}"

#define HANGUL                                                                                     \
    "\\x{1100}-\\x{11ff}\\x{302e}-\\x{302f}\\x{3131}-\\x{318e}\\x{3200}-\\x{321e}"                 \
    "\\x{3260}-\\x{327e}\\x{a960}-\\x{a97c}\\x{ac00}-\\x{d7a3}\\x{d7b0}-\\x{d7c6}"                 \
    "\\x{d7cb}-\\x{d7fb}\\x{ffa0}-\\x{ffbe}\\x{ffc2}-\\x{ffc7}\\x{ffca}-\\x{ffcf}"                 \
    "\\x{ffd2}-\\x{ffd7}\\x{ffda}-\\x{ffdc}"

#define HIRAGANA                                                                                   \
    "\\x{3041}-\\x{3096}\\x{309d}-\\x{309f}\\x{1b001}-\\x{1b11f}\\x{1b132}"                        \
    "\\x{1b150}-\\x{1b152}\\x{1f200}"

#define KATAKANA                                                                                   \
    "\\x{30a1}-\\x{30fa}\\x{30fd}-\\x{30ff}\\x{31f0}-\\x{31ff}\\x{32d0}-\\x{32fe}"                 \
    "\\x{3300}-\\x{3357}\\x{ff66}-\\x{ff6f}\\x{ff71}-\\x{ff9d}\\x{1aff0}-\\x{1aff3}"               \
    "\\x{1aff5}-\\x{1affb}\\x{1affd}-\\x{1affe}\\x{1b000}\\x{1b120}-\\x{1b122}\\x{1b155}"          \
    "\\x{1b164}-\\x{1b167}"

#define LETTERS       "\\p{L}" NEW_LETTERS
#define NUMBERS       "\\p{N}" NEW_NUMBERS
#define DIGITS        "\\p{Nd}" NEW_DIGITS
#define UPPERCASE     "\\p{Lu}" NEW_UPPERCASE
#define LOWERCASE     "\\p{Ll}" NEW_LOWERCASE
#define TITLECASE     "\\p{Lt}"
#define MODIFIERS     "\\p{Lm}" NEW_MODIFIERS
#define OTHER_LETTERS "\\p{Lo}" NEW_OTHER_LETTERS
#define MARKS         "\\p{M}" NEW_MARKS
#define PUNCTUATION   "\\p{P}" NEW_PUNCTUATION
#define SYMBOLS       "\\p{S}" NEW_SYMBOLS
// Rust's char::is_numeric, which follows a newer Unicode than the library's patterns do.
#define NUMERIC           "\\p{N}" NEW_NUMBERS NEW_NUMBERS_UNICODE_17
#define COMMON_WORD_CHARS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}" NEW_LETTERS NEW_WORD_CHARS
// Rust regex's \w.
#define WORD_CHARS COMMON_WORD_CHARS "\\x{200c}\\x{200d}"
// The \w of Oniguruma, which the library's patterns have: inside [], and outside, where the
// fractions and superscripts of Latin-1 are words, too.
#define CLASS_WORD_CHARS     COMMON_WORD_CHARS
#define ONIGURUMA_WORD_CHARS COMMON_WORD_CHARS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

#endif
