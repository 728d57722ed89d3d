"""Where messages go: channels of the plant, each with a test, and the log of what became of messages.

Secrets are never typed here: a channel holds the name under which the machine knows one. What stands in alerts.toml is shown, not changed.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from backend.jobs import channels, delivery
from backend.jobs.channels import Channel, Known
from pages.components import person, plant, text, undo, words

STATES = {"sent": ("Sent", "green"), "waiting": ("Waits for another try", "orange"), "sending": ("Being sent", "blue"),
          "given up": ("Given up", "red"), "unknown": ("Not known", "orange")}
SECRET = (f"Name of an environment variable, or of an entry in .streamlit/secrets.toml, that begins with {channels.OF_APP}; the secret "
          "itself stays out of the app.")


def show(shown: str) -> None:
    st.markdown("### Where messages go")
    if not person.told("settings"):
        return
    if shown == "demo":
        st.caption(":material/science: Nothing is ever sent of the demo plant.")
    try:
        known = channels.known()
    except jobs.ConfigError as error:
        words.sorry(error)
        known = channels.usable()
    for said in channels.passed_over():
        st.warning(words.plain(said, 400), icon=":material/warning:")
    if not known:
        st.caption("Alarms are shown in the app. Add a channel, and they are sent too, also while no page is open.")
    for one in known:
        _row(one)
    with st.popover("Add a channel", icon=":material/add:", type="primary" if not known else "secondary", key="new_channel"):
        _form(None)
    log(known)


def _row(one: Known) -> None:
    channel = one.channel
    with st.container(border=True, horizontal=True, vertical_alignment="center", key=f"channel_{channel.channel_id}"):
        by = "" if one.run_id else " · from alerts.toml"
        st.markdown(f"**{words.plain(channel.name, 60)}** · {channels.KINDS[channel.kind]}{by}  \n"
                    f":small[{words.plain(channel.where, 200)}]", width="stretch")
        st.button("Send a test", key=f"test_{channel.channel_id}", icon=":material/send:", on_click=_test, args=(channel.name,))
        if one.run_id:
            with st.popover("Change", type="tertiary", icon=":material/edit:", key=f"edit_channel_{channel.channel_id}"):
                _form(channel)


def _test(name: str, again: str = "") -> None:
    """A callback. The messenger sends it within seconds; the log below follows."""
    try:
        jobs.record("alert-test", dict(channel=name, again=again))
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")


def _form(channel: Channel | None) -> None:
    old, key = channel or Channel(name="new", url="http://x"), channel.channel_id if channel else "new"
    kind = channel.kind if channel else str(st.segmented_control("Kind", list(channels.KINDS), default="mail", required=True,
                                                                 format_func=channels.KINDS.get, key="channel_kind"))
    with st.form(f"channel_{key}_{kind}", border=False):
        name = old.name if channel else st.text_input("Name", max_chars=60, placeholder="Shift leaders").strip()
        values = {"mail": _mail, "webhook": _webhook, "file": _file}[kind](old if channel else None)
        over = st.toggle("Say too when an alarm is over", old.over)
        if st.form_submit_button("Save", type="primary"):
            try:
                made = channels.of_app(Channel(name, kind, **values, over=over))
            except jobs.ConfigError as error:
                words.sorry(error)
                return
            undo.record(f"Messages go to {made.name}.", "channel", [made.to_json()], "real")
    if channel is not None and st.button("Take it away", key=f"drop_channel_{key}", icon=":material/delete:", type="tertiary"):
        undo.record(f"Nothing is sent to {channel.name} any more.", "channel", [replace(channel, removed=True).to_json()], "real")


def _mail(old: Channel | None) -> dict[str, Any]:
    ways = list(channels.SECURITY)
    server = st.text_input("The plant's relay", old.server if old else "", placeholder="relay.plant.example").strip()
    left, right = st.columns(2)
    security = left.selectbox("Encryption", ways, ways.index(old.security) if old else 1, format_func=channels.SECURITY.get)
    port = right.number_input("Port", 1, 65535, old.port if old else None, placeholder="the usual one")
    sender = st.text_input("From", old.sender if old else "", placeholder="diffspect@plant.example").strip()
    to = st.text_input("To, separated by commas", ", ".join(old.to) if old else "", placeholder="shift.leaders@plant.example")
    user = st.text_input("Login, if the relay asks for one", old.user if old else "").strip()
    secret = st.text_input("Name of its password", old.secret if old else "", help=SECRET, placeholder=f"{channels.OF_APP}RELAY").strip()
    pictures = st.toggle("Shift reports with their pictures", bool(old and old.pictures), help="Else a mail carries words and figures.")
    return dict(server=server, security=security, port=port, sender=sender, user=user, secret=secret, pictures=pictures,
                to=[a.strip() for a in to.split(",") if a.strip()])


def _webhook(old: Channel | None) -> dict[str, Any]:
    """An address that is kept is shown by its host alone: many carry a token in their path."""
    typed = st.text_input("New address" if old else "Address", "", help="{NAME} stands for a secret of that name. " + SECRET,
                          placeholder=f"{old.host}/… is kept" if old else f"https://chat.plant.example/{{{channels.OF_APP}CHAT}}")
    secret = st.text_input("Name of its token, if it asks for one", old.secret if old else "", help=SECRET,
                           placeholder=f"{channels.OF_APP}HOOK").strip()
    return dict(url=typed.strip() or (old.url if old else ""), secret=secret)


def _file(old: Channel | None) -> dict[str, Any]:
    return dict(folder=st.text_input("Folder in data/alerts", old.folder if old else "", placeholder="for the MES",
                                     help="One JSON file for each message. Any other folder is set in alerts.toml.").strip())


# ---- what became of messages


def log(known: list[Known]) -> None:
    """Looked at again every two seconds while something is on its way."""
    st.markdown("#### What became of messages")
    waiting = any(d.state in ("waiting", "sending") for d in delivery.log(20)) or bool(_unsent(known))
    st.fragment(_log, run_every=2.0 if waiting else None)(known)


def _unsent(known: list[Known]) -> list[str]:
    """Tests that the messenger has not met yet."""
    return [r for r in delivery.asked() if known]


def _log(known: list[Known]) -> None:
    rows = delivery.log(100)
    if unsent := _unsent(known):
        st.caption(f":material/hourglass_empty: {text.counted(len(unsent), 'test')} on the way."
                   + ("" if jobs.worker_alive() else " The worker is not running yet; it starts by itself."))
    if not rows:
        st.caption("Nothing was sent yet.")
        return
    frame = pd.DataFrame({
        "When": [_clock(d.at) for d in rows], "State": [[STATES[d.state][0]] for d in rows],
        "Channel": [d.channel for d in rows], "What": [d.text for d in rows], "Tries": [d.attempts for d in rows],
        "Said": [d.said for d in rows], "Next try": [_clock(d.next_at) if d.next_at else "" for d in rows]})
    pills = st.column_config.MultiselectColumn(options=[s for s, _ in STATES.values()], color=[c for _, c in STATES.values()])
    st.dataframe(frame, hide_index=True, alt="What became of messages, the newest first",
                 column_config={"State": pills, "What": st.column_config.TextColumn(width="large")})
    if lost := [d for d in rows if d.state in ("unknown", "given up")]:
        d = lost[0]
        st.button(f"Send again: {words.short(d.text, 60)}", key="send_again", icon=":material/replay:", type="tertiary", on_click=_test,
                  args=(d.channel, d.run_id))


def _clock(at: datetime) -> str:
    """On the plant's clock, as everything that a manager reads."""
    local = plant.local(at)
    return f"{local.day} {local:%b %H:%M}"
