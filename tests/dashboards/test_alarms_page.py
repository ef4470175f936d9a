"""The alarms page as people use it, and what a viewer's browser is refused."""

import re
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from playwright.async_api import Locator, expect

from dashboards.requests import MAX_SEEN
from isotherm.accounts.audit import Audit
from isotherm.alarms import Alarms
from isotherm.analytics import Analytics, Entry, Status
from isotherm.clock import now_us
from isotherm.events import Event
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.rules import Rule, Rules
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.events import EventLog
from tests.dashboards.alarming import HOT, Alarming
from tests.dashboards.people import log_in, register
from tests.dashboards.stack import Filler, Web
from tests.support.chromium import Browser
from tests.support.valkey import Valkey

pytestmark = [pytest.mark.browser, pytest.mark.servers]

KEY = "hot/kitchen/temperature"
DAMP = Rule(id="damp", kind="threshold", metric="humidity", above=70.0, severity="minor")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"kafka": "127.0.0.1:1"})


@pytest.fixture
def closed_web(settings: Settings) -> Iterator[Web]:
    """One where people have to log in."""
    with Web(settings.model_copy(update={"login": "required"})) as process:
        yield process


def rows(browser: Browser) -> Locator:
    return browser.page.locator("#alarms tbody tr")


async def confirm(browser: Browser) -> None:
    await browser.page.locator("dialog button[type=submit]").click()


async def events(settings: Settings) -> list[Event]:
    async with client.connected(settings) as redis:
        return await EventLog(redis, settings.partitions).newest()


async def kept_rules(settings: Settings) -> list[Rule]:
    async with client.connected(settings) as redis:
        return await Rules(redis).all()


async def status(settings: Settings) -> str:
    async with client.connected(settings) as redis:
        return (await Alarms(redis, settings.partitions).get(KEY)).status


async def test_rules_that_nobody_evaluates_are_not_passed_over_in_silence(
    settings: Settings, web: Web, browser: Browser
) -> None:
    await Alarming(settings).keep_rules()
    await browser.open(web.url + "/alarms")
    page = browser.page.locator("#alarms")
    notice = page.get_by_text("No rule is evaluated now")
    await expect(notice).to_contain_text("“alarms” does not run anywhere")
    await expect(page).to_contain_text("1 rule is waiting to be evaluated")
    starting = Status(name="alarms", instance="1", at=now_us() + HOUR, state="starting")
    async with client.connected(settings) as redis:
        await Analytics(redis).report(starting)
        await expect(notice).to_contain_text("“alarms” is starting")
        await Analytics(redis).report(replace(starting, state="failing"))
        await expect(notice).to_contain_text("“alarms” fails")
        await Analytics(redis).report(replace(starting, state="running", partitions=tuple(range(settings.partitions))))
        await expect(page).to_contain_text("1 rule is evaluated")
        await expect(notice).to_be_hidden()
        await Analytics(redis).put(Entry("alarms", "alarms", is_enabled=False))
        await Analytics(redis).retract(starting)
    await expect(notice).to_be_visible()
    await expect(notice).to_contain_text("is disabled (isotherm agent enable alarms)")


async def test_an_alarm_comes_by_itself_with_its_value_unit_state_and_times_and_is_read_out(
    settings: Settings, web: Web, browser: Browser
) -> None:
    await browser.open(web.url + "/alarms")
    await expect(browser.page.locator("#alarms")).to_contain_text("There is no rule yet")
    alarming = Alarming(settings)
    await alarming.say("kitchen/temperature", 31.25, unit="Cel", time=now_us() - 90 * SECOND)
    await expect(rows(browser)).to_have_count(1)
    line = rows(browser).first
    for text in ("major", "kitchen", "temperature", "31.25 °C", "Raised", "1 min ago"):
        await expect(line).to_contain_text(text)
    await expect(line.locator(".lasted")).to_have_text(re.compile("^1 min [345]. s$"))
    await expect(line.locator(".since time")).to_have_attribute("title", re.compile(r"^\d{4}-\d\d-\d\d .* UTC$"))
    href = "/device?id=kitchen&metric=temperature"
    await expect(line.get_by_role("link", name="kitchen")).to_have_attribute("href", href)
    await expect(browser.page.locator("[aria-live]").first).to_contain_text("New major alarm: kitchen temperature is 31.25")
    await expect(browser.page).to_have_title("(1) Alarms · Isotherm")
    await expect(browser.page.locator("header nav [aria-current=page]")).to_have_text("Alarms")
    await alarming.say("kitchen/temperature", 20.0)
    await expect(line).to_contain_text("Cleared")
    assert browser.errors == []
    assert browser.outside == []


async def test_an_acknowledgement_is_seen_by_everybody_at_once_with_its_note(
    settings: Settings, web: Web, browser: Browser
) -> None:
    await Alarming(settings).say("kitchen/temperature", 31.0)
    await browser.open(web.url + "/alarms")
    second = Browser(await browser.page.context.new_page())
    await second.open(web.url + "/alarms")
    await expect(rows(second)).to_have_count(1)
    await rows(browser).get_by_role("button", name="Acknowledge").click()
    await browser.page.get_by_role("textbox", name="Note").fill("on my <b>way</b>")
    await confirm(browser)
    for one in (browser, second):
        await expect(rows(one)).to_contain_text("Acknowledged")
        await expect(rows(one)).to_contain_text("on my <b>way</b>")
        await expect(rows(one).get_by_role("button", name="Acknowledge")).to_have_count(0)
    assert await status(settings) == "active, acknowledged"
    newest = (await events(settings))[0]
    assert (newest.kind, newest.by, newest.message) == ("alarm.acknowledged", "local", "on my <b>way</b>")


async def test_what_somebody_else_acknowledges_on_the_command_line_is_seen_too(
    settings: Settings, web: Web, browser: Browser
) -> None:
    await Alarming(settings).say("kitchen/temperature", 31.0)
    await browser.open(web.url + "/alarms")
    await expect(rows(browser)).to_have_count(1)
    async with client.connected(settings) as redis:
        alarms = Alarms(redis, settings.partitions)
        event = await alarms.acknowledge(KEY, (await alarms.get(KEY)).row.since, "ann")
        await EventLog(redis, settings.partitions).append(event)
    await expect(rows(browser)).to_contain_text("by ann")


async def test_several_are_acknowledged_together(settings: Settings, web: Web, browser: Browser) -> None:
    alarming = Alarming(settings)
    for number in range(3):
        await alarming.say(f"room-{number}/temperature", 31.0)
    await browser.open(web.url + "/alarms")
    await browser.page.get_by_label("Choose all alarms shown").check()
    await browser.page.get_by_role("button", name="Acknowledge 3").click()
    await confirm(browser)
    await expect(browser.page.locator("#alarms .said")).to_have_text("3 alarms acknowledged")
    await expect(browser.page.locator(".stage.seen")).to_have_count(3)


async def test_a_shelved_alarm_needs_no_attention_until_it_is_unshelved(
    settings: Settings, web: Web, browser: Browser
) -> None:
    await Alarming(settings).say("kitchen/temperature", 31.0)
    await browser.open(web.url + "/alarms")
    await rows(browser).get_by_role("button", name="Shelve").click()
    await browser.page.get_by_label("For how long").select_option("2 h")
    await browser.page.get_by_label("Which alarms").select_option("hot")
    await confirm(browser)
    await expect(rows(browser)).to_have_count(0)
    await expect(browser.page.locator("#alarms")).to_contain_text("Nothing needs attention")
    await browser.page.get_by_label("State").select_option("Shelved")
    await expect(rows(browser)).to_contain_text("shelved by local until")
    assert await status(settings) == "active, shelved"
    await rows(browser).get_by_role("button", name="Unshelve").click()
    await expect(browser.page.locator("dialog")).to_contain_text("Every alarm of the rule hot")
    await confirm(browser)
    await expect(rows(browser)).to_have_count(0)
    assert await status(settings) == "active"


async def test_the_list_is_filtered_and_a_reload_keeps_the_filter(settings: Settings, web: Web, browser: Browser) -> None:
    alarming = Alarming(settings, [HOT, DAMP])
    now = now_us()
    await alarming.say("kitchen/temperature", 31.0, time=now - 20 * SECOND)
    await alarming.say("cellar/humidity", 80.0, time=now - 10 * SECOND)
    await alarming.say("attic/temperature", 31.0, time=now - 5 * SECOND)
    await alarming.say("attic/temperature", 20.0, time=now)
    await browser.open(web.url + "/alarms")

    async def shown() -> list[str]:
        return await rows(browser).locator("a").all_text_contents()

    await expect(rows(browser)).to_have_count(3)
    assert await shown() == ["kitchen", "cellar", "attic"]
    await browser.page.get_by_label("Order").select_option("Newest first")
    assert await shown() == ["attic", "cellar", "kitchen"]
    await browser.page.get_by_label("Severity").select_option("Major or worse")
    assert await shown() == ["attic", "kitchen"]
    await browser.page.get_by_label("State").select_option("Raised")
    assert await shown() == ["kitchen"]
    await browser.page.reload()
    await expect(rows(browser)).to_have_count(1)
    assert await shown() == ["kitchen"]
    await browser.page.get_by_role("searchbox", name="Filter alarms").fill("nothing like it")
    await expect(rows(browser)).to_have_count(0)
    await browser.page.get_by_role("button", name="Show all").click()
    await expect(rows(browser)).to_have_count(3)


async def test_an_alarm_is_acknowledged_with_the_keyboard_alone(settings: Settings, web: Web, browser: Browser) -> None:
    await Alarming(settings).say("kitchen/temperature", 31.0)
    await browser.open(web.url + "/alarms")
    button = rows(browser).get_by_role("button", name="Acknowledge")
    await button.focus()
    await browser.page.keyboard.press("Enter")
    note = browser.page.get_by_role("textbox", name="Note")
    await expect(note).to_be_focused()
    await browser.page.keyboard.press("Escape")
    await expect(browser.page.locator("dialog")).to_have_count(0)
    await expect(button).to_be_focused()
    await browser.page.keyboard.press("Enter")
    await browser.page.keyboard.type("seen")
    await browser.page.keyboard.press("Tab")
    await browser.page.keyboard.press("Tab")
    await browser.page.keyboard.press("Enter")
    await expect(rows(browser)).to_contain_text("seen")


SCRIPT = "<img src=x onerror=window.hit=1>"


async def test_text_of_devices_and_people_stays_text(settings: Settings, web: Web, browser: Browser) -> None:
    rule = Rule(id="hot", kind="threshold", metric="temperature", above=30.0, message=SCRIPT + "{unit}", name=SCRIPT)
    alarming = Alarming(settings, [rule])
    await alarming.keep_rules()
    await alarming.say("kitchen/temperature", 31.0, unit="</script><b>")
    await browser.open(web.url + "/alarms")
    await expect(rows(browser)).to_contain_text(SCRIPT)
    await expect(rows(browser)).to_contain_text("31 </script><b>")
    await expect(browser.page.locator("#rules")).to_contain_text(SCRIPT)
    assert await browser.page.evaluate("window.hit") is None
    assert browser.errors == []


async def test_the_page_outlives_the_store(settings: Settings, web: Web, browser: Browser, valkey: Valkey) -> None:
    alarming = Alarming(settings)
    await alarming.say("kitchen/temperature", 31.0)
    await browser.open(web.url + "/alarms")
    await expect(rows(browser)).to_have_count(1)
    valkey.stop()
    problem = browser.page.locator("#alarms .problem")
    await expect(problem).to_be_visible()
    await expect(rows(browser)).to_have_count(1)
    await rows(browser).get_by_role("button", name="Acknowledge").click()
    await confirm(browser)
    await expect(browser.page.locator("dialog [role=alert]")).to_contain_text("the store does not answer")
    await browser.page.keyboard.press("Escape")
    valkey.start()
    await expect(problem).to_be_hidden()
    await alarming.say("attic/temperature", 31.0)
    await expect(rows(browser)).to_have_count(2)


async def open_form(browser: Browser, web: Web) -> None:
    await browser.open(web.url + "/alarms")
    await browser.page.locator("#rules").get_by_role("button", name="Add a rule").click()
    await expect(browser.page.locator("dialog input[name=id]")).to_be_focused()


async def fill(browser: Browser, **fields: str) -> None:
    for name, text in fields.items():
        await browser.page.locator(f"dialog [name={name}]").fill(text)


async def test_a_rule_is_written_tried_kept_changed_and_removed(
    settings: Settings, filler: Filler, web: Web, browser: Browser
) -> None:
    now = now_us()
    await filler.write(
        {"kitchen/temperature": [(now - 3 * HOUR, 20.0), (now - 2 * HOUR, 31.0), (now - HOUR, 20.0), (now, 33.0)]}
    )
    await open_form(browser, web)
    await fill(browser, id="warm", metric="temperature", above="30")
    await browser.page.get_by_role("button", name="Preview over the last day").click()
    trial = browser.page.locator("dialog .trial")
    await expect(trial).to_contain_text("2 alarms in the last 24 h, of 4 readings of 1 series")
    await expect(trial.locator(".strip span")).to_have_count(2)
    await expect(trial.locator("li").last).to_contain_text("for 1 h")
    assert await kept_rules(settings) == []
    await confirm(browser)
    line = browser.page.locator("#rules tbody tr")
    await expect(line).to_contain_text("temperature above 30")
    assert await kept_rules(settings) == [Rule(id="warm", kind="threshold", metric="temperature", above=30.0)]

    await line.get_by_role("button", name="Edit").click()
    await fill(browser, above="32,5", hold="5m")
    await browser.page.locator("dialog [name=severity]").select_option("critical")
    await confirm(browser)
    await expect(line).to_contain_text("temperature above 32.5 for 5m")
    await expect(line).to_contain_text("critical")
    [rule] = await kept_rules(settings)
    assert (rule.above, rule.hold, rule.severity) == (32.5, 5 * MINUTE, "critical")

    await line.get_by_role("switch", name="Evaluate warm").click()
    await expect(line.get_by_role("switch")).to_have_attribute("aria-checked", "false")
    assert not (await kept_rules(settings))[0].enabled
    await line.get_by_role("button", name="Remove").click()
    await confirm(browser)
    await expect(line).to_have_count(0)
    assert await kept_rules(settings) == []
    assert browser.errors == []


WRONG = [
    ("threshold", {"id": "Hot!", "metric": "t", "above": "3"}, "id", "expected 1–64 lower-case letters"),
    ("threshold", {"id": "hot", "metric": "t", "above": "warm"}, "above", "'warm', expected a number"),
    ("threshold", {"id": "hot", "metric": "t", "above": ""}, "above", "expected a number for above"),
    ("threshold", {"id": "hot", "metric": "t", "above": "3", "hold": "soon"}, "hold", "expected a duration"),
    ("rate", {"id": "hot", "metric": "", "above": "3", "hold": ""}, "metric", "expected a metric such as"),
    ("silence", {"id": "hot"}, "silence", "expected how long nothing comes"),
    ("expression", {"id": "hot", "expression": "temperature >"}, "expression", "cannot be read at position"),
    ("threshold", {"id": "hot", "metric": "temprature", "above": "3"}, "devices", "did you mean temperature?"),
]


async def test_what_is_wrong_with_a_rule_is_said_at_its_field(
    filler: Filler, settings: Settings, web: Web, browser: Browser
) -> None:
    await filler.write({"kitchen/temperature": [(now_us(), 20.0)]})
    await open_form(browser, web)
    for kind, fields, field, said in WRONG:
        await browser.page.locator(f"dialog [data-kind={kind}]").click()
        await fill(browser, **fields)
        await confirm(browser)
        await expect(browser.page.locator(f"#wrong-{field}")).to_contain_text(said)
        marked = browser.page.locator(f"dialog [name={field}]")
        await expect(marked).to_have_attribute("aria-invalid", "true")
        await expect(marked).to_be_focused()
    assert await kept_rules(settings) == []


async def test_a_rule_about_what_is_yet_to_come_is_kept_when_that_is_meant(
    settings: Settings, web: Web, browser: Browser
) -> None:
    await open_form(browser, web)
    await fill(browser, id="hot", metric="temperature", above="30")
    await confirm(browser)
    await expect(browser.page.locator("#wrong-devices")).to_contain_text("nothing is stored yet")
    await browser.page.get_by_role("button", name="Save anyway").click()
    await expect(browser.page.locator("#rules tbody tr")).to_have_count(1)
    assert [rule.id for rule in await kept_rules(settings)] == ["hot"]


async def test_a_rule_that_somebody_else_has_changed_meanwhile_is_not_overwritten(
    settings: Settings, filler: Filler, web: Web, browser: Browser
) -> None:
    await filler.write({"kitchen/temperature": [(now_us(), 20.0)]})
    await Alarming(settings).keep_rules()
    await browser.open(web.url + "/alarms")
    await browser.page.locator("#rules").get_by_role("button", name="Edit").click()
    await fill(browser, above="40")
    async with client.connected(settings) as redis:
        await Rules(redis).replace(Rule(id="hot", kind="threshold", metric="temperature", above=35.0))
    await confirm(browser)
    await expect(browser.page.locator("dialog [role=alert]")).to_contain_text("somebody has changed hot meanwhile")
    assert [rule.above for rule in await kept_rules(settings)] == [35.0]


# Keeps the functions by which the page's components ask.
CAPTURE = """addEventListener("DOMContentLoaded", () => {
  window.asks = []
  const asker = window.isotherm.asker
  window.isotherm.asker = model => { const ask = asker(model); window.asks.push(ask); return ask }
})"""


async def test_a_viewer_sees_alarms_and_is_refused_by_the_server_whatever_the_browser_sends(
    settings: Settings, closed_web: Web, browser: Browser
) -> None:
    await register(settings)
    alarming = Alarming(settings)
    await alarming.keep_rules()
    await alarming.say("kitchen/temperature", 31.0)
    since = (await events(settings))[0].since
    form = {"id": "new", "kind": "threshold", "metric": "temperature", "above": "1"}
    sent = [
        {"do": "acknowledge", "alarms": [[KEY, since]]},
        {"do": "shelve", "key": KEY, "seconds": 60},
        {"do": "unshelve", "key": KEY},
        {"do": "save", "form": form, "anyway": True},
        {"do": "enable", "id": "hot", "enabled": False},
        {"do": "remove", "id": "hot"},
        {"do": "preview", "form": form},
    ]
    await browser.page.add_init_script(CAPTURE)
    await log_in(browser.page, closed_web.url + "/alarms", "vera")
    await expect(rows(browser)).to_have_count(1)
    for name in ("Acknowledge", "Shelve", "Add a rule", "Edit", "Remove"):
        await expect(browser.page.get_by_role("button", name=name)).to_have_count(0)
    await expect(browser.page.get_by_role("switch")).to_be_disabled()
    for request in sent:
        answer = await browser.page.evaluate("request => window.asks[0](request)", request)
        assert re.search("vera is a viewer and may not .*an operator may", answer["error"]), request
    assert await status(settings) == "active"
    assert await kept_rules(settings) == [HOT]
    async with client.connected(settings) as redis:
        entries = await Audit(redis).read()
    refused = {entry.what for entry in entries if entry.who == "vera" and entry.outcome == "refused"}
    expected = ("acknowledge alarm", "shelve alarm", "unshelve alarm", "add rule", "disable rule", "remove rule")
    assert refused == set(expected)  # to try a rule changes nothing


NONSENSE = [
    "nonsense",
    {"do": "format"},
    {"do": "shelve", "key": KEY, "seconds": "long", "n": 1},
    {"do": "acknowledge", "alarms": [], "n": 1},
    {"do": "acknowledge", "alarms": [[KEY, 1]] * (MAX_SEEN + 1), "n": 1},
    {"do": "save", "form": {"id": {"deep": 1}}, "n": 1},
]


async def test_a_message_that_no_page_sends_is_refused_and_the_page_goes_on(
    settings: Settings, web: Web, browser: Browser
) -> None:
    await browser.page.add_init_script(CAPTURE.replace("const ask =", "window.model ??= model; const ask ="))
    await browser.open(web.url + "/alarms")
    refused = """message => new Promise(done => {
      model.on("msg:custom", data => { if (data.kind === "answer") done(data.error) })
      model.send_msg(message)
    })"""
    for message in NONSENSE:
        assert "this is no request" in await browser.page.evaluate(refused, message), message
    await Alarming(settings).say("kitchen/temperature", 31.0)
    await expect(rows(browser)).to_have_count(1)
    assert "Traceback" not in web.log


async def test_a_phone_needs_no_sideways_scrolling(settings: Settings, web: Web, browser: Browser) -> None:
    alarming = Alarming(settings, [HOT, DAMP])
    await alarming.keep_rules()
    await alarming.say(f"{'long-' * 20}name/temperature", 31.0, time=now_us() - DAY, unit="unit" * 8)
    await browser.page.set_viewport_size({"width": 360, "height": 780})
    await browser.open(web.url + "/alarms")
    await expect(rows(browser)).to_have_count(1)
    assert await browser.page.evaluate("document.documentElement.scrollWidth") <= 360
    await browser.page.get_by_role("button", name="Add a rule").click()
    inside = await browser.page.locator("dialog .inside").evaluate("one => one.scrollWidth - one.clientWidth")
    assert inside <= 0
