"""Language codes: ISO 639, two letters where a language has them, else three; a script or region may follow."""

from __future__ import annotations

import re
from difflib import get_close_matches

from ernie2.errors import ConfigError

# two letters (ISO 639-1), three letters (ISO 639-2, bibliographic after terminological), English name
_TABLE = """
aa aar Afar|ab abk Abkhazian|ae ave Avestan|af afr Afrikaans|ak aka Akan|am amh Amharic|an arg Aragonese|ar ara Arabic
as asm Assamese|av ava Avaric|ay aym Aymara|az aze Azerbaijani|ba bak Bashkir|be bel Belarusian|bg bul Bulgarian
bi bis Bislama|bm bam Bambara|bn ben Bengali|bo bod,tib Tibetan|br bre Breton|bs bos Bosnian|ca cat Catalan
ce che Chechen|ch cha Chamorro|co cos Corsican|cr cre Cree|cs ces,cze Czech|cu chu Church Slavic|cv chv Chuvash
cy cym,wel Welsh|da dan Danish|de deu,ger German|dv div Dhivehi|dz dzo Dzongkha|ee ewe Ewe|el ell,gre Greek
en eng English|eo epo Esperanto|es spa Spanish|et est Estonian|eu eus,baq Basque|fa fas,per Persian|ff ful Fulah
fi fin Finnish|fj fij Fijian|fo fao Faroese|fr fra,fre French|fy fry Frisian|ga gle Irish|gd gla Scottish Gaelic
gl glg Galician|gn grn Guarani|gu guj Gujarati|gv glv Manx|ha hau Hausa|he heb Hebrew|hi hin Hindi|ho hmo Hiri Motu
hr hrv Croatian|ht hat Haitian|hu hun Hungarian|hy hye,arm Armenian|hz her Herero|ia ina Interlingua|id ind Indonesian
ie ile Interlingue|ig ibo Igbo|ii iii Sichuan Yi|ik ipk Inupiaq|io ido Ido|is isl,ice Icelandic|it ita Italian
iu iku Inuktitut|ja jpn Japanese|jv jav Javanese|ka kat,geo Georgian|kg kon Kongo|ki kik Kikuyu|kj kua Kuanyama
kk kaz Kazakh|kl kal Greenlandic|km khm Khmer|kn kan Kannada|ko kor Korean|kr kau Kanuri|ks kas Kashmiri|ku kur Kurdish
kv kom Komi|kw cor Cornish|ky kir Kyrgyz|la lat Latin|lb ltz Luxembourgish|lg lug Ganda|li lim Limburgish
ln lin Lingala|lo lao Lao|lt lit Lithuanian|lu lub Luba-Katanga|lv lav Latvian|mg mlg Malagasy|mh mah Marshallese
mi mri,mao Maori|mk mkd,mac Macedonian|ml mal Malayalam|mn mon Mongolian|mr mar Marathi|ms msa,may Malay|mt mlt Maltese
my mya,bur Burmese|na nau Nauru|nb nob Norwegian Bokmål|nd nde North Ndebele|ne nep Nepali|ng ndo Ndonga
nl nld,dut Dutch|nn nno Norwegian Nynorsk|no nor Norwegian|nr nbl South Ndebele|nv nav Navajo|ny nya Chichewa
oc oci Occitan|oj oji Ojibwa|om orm Oromo|or ori Oriya|os oss Ossetian|pa pan Punjabi|pi pli Pali|pl pol Polish
ps pus Pashto|pt por Portuguese|qu que Quechua|rm roh Romansh|rn run Rundi|ro ron,rum Romanian|ru rus Russian
rw kin Kinyarwanda|sa san Sanskrit|sc srd Sardinian|sd snd Sindhi|se sme Northern Sami|sg sag Sango|si sin Sinhala
sk slk,slo Slovak|sl slv Slovenian|sm smo Samoan|sn sna Shona|so som Somali|sq sqi,alb Albanian|sr srp Serbian
ss ssw Swati|st sot Sotho|su sun Sundanese|sv swe Swedish|sw swa Swahili|ta tam Tamil|te tel Telugu|tg tgk Tajik
th tha Thai|ti tir Tigrinya|tk tuk Turkmen|tl tgl Tagalog|tn tsn Tswana|to ton Tonga|tr tur Turkish|ts tso Tsonga
tt tat Tatar|tw twi Twi|ty tah Tahitian|ug uig Uyghur|uk ukr Ukrainian|ur urd Urdu|uz uzb Uzbek|ve ven Venda
vi vie Vietnamese|vo vol Volapük|wa wln Walloon|wo wol Wolof|xh xho Xhosa|yi yid Yiddish|yo yor Yoruba|za zha Zhuang
zh zho,chi,cmn Chinese|zu zul Zulu
"""
_ROWS = [row.split(" ", 2) for row in _TABLE.strip().replace("\n", "|").split("|")]
_CODES = frozenset(row[0] for row in _ROWS)
_MEANT = {
    **{row[2].lower(): row[0] for row in _ROWS},
    **{three: row[0] for row in _ROWS for three in row[1].split(",")},
    "cn": "zh",
    "cz": "cs",
    "dk": "da",
    "gr": "el",
    "jp": "ja",
    "ua": "uk",
    "us": "en",
    "mandarin": "zh",
    "中文": "zh",
    "汉语": "zh",
    "英语": "en",
    "deutsch": "de",
    "français": "fr",
    "español": "es",
    "日本語": "ja",
}
"""Names and other codes → the code to use."""
_FORM = re.compile(r"([A-Za-z]{2,3})((?:[-_][A-Za-z0-9]{2,8})*)")


def check_language(language: str) -> str:
    """Return the code `language`, its first part in lower case; raises `ConfigError` with the nearest one otherwise.

    Two letters must be a code of ISO 639-1; three letters are refused only where the language has two.
    """
    form = _FORM.fullmatch(language)
    code = form[1].lower() if form else language.strip().lower()
    if form and (code in _CODES or (len(code) == 3 and code not in _MEANT)):
        return code + form[2]
    near = next((_MEANT[part] for part in [code, *re.split(r"[-_ (),]+", code)] if part in _MEANT), None)
    if near is None and 4 <= len(code) <= 40:
        near = next((_MEANT[name] for name in get_close_matches(code, _MEANT, n=1)), None)
    raise ConfigError(
        f"{language[:40]!r} is not an ISO 639 code; " + (f"use {near!r}." if near else "use one such as 'en' or 'zh'.")
    )
