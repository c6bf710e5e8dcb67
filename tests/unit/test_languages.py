"""Detection by script and detector, and what has no certain language."""

from __future__ import annotations

import pytest

from app.config import load_settings
from app.errors import ConfigurationError
from app.languages import ANALYZERS, Guess, QueryLanguages, detect, parse_languages

LATIN = QueryLanguages(("en", "de", "fr", "zh", "ja", "ru"))
PASSAGES = {
    "de": "Der Stromverbrauch der Anlage wird jede Stunde gemessen und im Protokoll gespeichert.",
    "fr": "La consommation de la pompe est mesurée chaque heure et enregistrée dans le journal.",
    "fi": "Pumpun kulutus mitataan joka tunti ja tallennetaan lokiin, jota voi lukea verkossa.",
    "tr": "Pompanın tüketimi her saat ölçülür ve daha sonra okunmak üzere günlüğe kaydedilir.",
    "el": "Η κατανάλωση της αντλίας μετριέται κάθε ώρα και αποθηκεύεται στο ημερολόγιο.",
    "hi": "पंप की खपत हर घंटे मापी जाती है और लॉग में सहेजी जाती है।",
    "th": "ปริมาณการใช้ของปั๊มจะถูกวัดทุกชั่วโมงและบันทึกไว้ในบันทึก",
    "vi": "Mức tiêu thụ của máy bơm được đo mỗi giờ và được lưu vào nhật ký.",
    "ja": "ポンプの消費量は毎時間測定され、ログに保存されます。",
    "ko": "펌프의 소비량은 매시간 측정되어 로그에 저장됩니다.",
    "zh": "泵的消耗量每小时测量一次，并保存在日志中。",
}
WORLD = (
    "Аҧсуа Afaraf Shqip አማርኛ العربية Հայերեն অসমীয়া авар azərbaycan euskara беларуская বাংলা brezhoneg български "
    "ဗမာစာ català нохчийн 中文 чӑваш hrvatski čeština dansk ދިވެހި Nederlands རྫོང་ཁ eesti føroyskt suomi français "
    "ქართული Deutsch ελληνικά ગુજરાતી עברית हिन्दी magyar Gaeilge Íslenska italiano 日本語 ಕನ್ನಡ қазақ ភាសាខ្មែរ"
)

NAMES = (
    "Abkhaz, Afar, Afrikaans, Akan, Albanian, Amharic, Arabic, Aragonese, Armenian, Assamese, Avaric, Aymara, Bambara, "
    "Bashkir, Basque, Belarusian, Bengali, Bislama, Bosnian, Breton, Bulgarian, Burmese, Catalan, Chamorro, Chechen, "
    "Chichewa, Chinese, Chuvash, Cornish, Corsican, Cree, Croatian, Czech, Danish, Divehi, Dutch, Dzongkha, Esperanto, "
    "Estonian, Ewe, Faroese, Fijian, Finnish, French, Fula, Galician, Georgian, German, Greek, Guarani, Gujarati, "
    "Haitian, Hausa, Hebrew, Herero, Hindi, Hiri Motu, Hungarian, Icelandic, Ido, Igbo, Indonesian, Interlingua"
)


@pytest.mark.parametrize("language", PASSAGES)
def test_a_passage_knows_its_language(language: str) -> None:
    found = detect(PASSAGES[language])
    assert found.language == language
    assert 0.5 <= found.confidence <= 1


@pytest.mark.parametrize("text", ["", "😀🎉" * 40, "4711 0815 12:30", "ERR-4711", WORLD, WORLD * 8, NAMES, "\ud800"])
def test_what_is_in_no_language_has_none(text: str) -> None:
    found = detect(text)
    assert found.language is None
    assert found.confidence < 0.5


def test_what_is_too_short_takes_its_documents() -> None:
    assert detect("OK", Guess("de", 0.9)) == Guess("de", 0.9)
    assert detect("OK", Guess(None, 0.3)).language is None
    assert detect(PASSAGES["fr"], Guess("de", 0.9)).language == "fr"


@pytest.mark.parametrize(
    ("query", "languages"),
    [
        ("How is the consumption of the pump measured?", ("en",)),
        ("Wie wird der Verbrauch der Pumpe gemessen?", ("de",)),
        ("Comment la consommation est-elle mesurée ?", ("fr",)),
        ("Как измеряется потребление?", ("ru",)),
        ("как настроить GitLab Runner в Docker", ("ru",)),
        ("泵的消耗量", ("zh",)),
        ("ポンプの消費量", ("ja",)),
        ("펌프의 소비량", ()),
        ("Hoe wordt het verbruik van de pomp gemeten en opgeslagen?", ()),
        ("😀 4711", ()),
        ("", ()),
    ],
)
def test_the_script_decides_before_the_detector(query: str, languages: tuple[str, ...]) -> None:
    assert LATIN.guess(query) == languages


def test_an_uncertain_query_has_several() -> None:
    found = LATIN.guess("Berlin")
    assert 1 < len(found) <= 3
    assert set(found) <= {"en", "de", "fr"}


def test_codes_are_read_and_unknown_ones_named() -> None:
    assert parse_languages(" en, DE,zh-Hant,nb,en ") == ("en", "de", "zh", "no")
    assert load_settings(languages="en,DE").index.language_codes == ("en", "de")
    assert load_settings().index.language_codes == ()
    with pytest.raises(ConfigurationError, match=r"BRAID_LANGUAGES='en,klingon'.*'klingon' is not a language.*ar, az"):
        load_settings(languages="en,klingon")


def test_every_analyzer_is_one_of_opensearch() -> None:
    from typing import get_args

    from app.config.section import Language

    assert set(ANALYZERS.values()) <= set(get_args(Language))
