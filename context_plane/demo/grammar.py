"""Words and phrases of the demo: data only, expanded by `texts.py`.

`GRAMMAR` holds what the seller writes down and small parts, `SAID` what the customer says, `SUBJECTS` the
headings, each by topic. `{name}` is another symbol or a fact of the account (contact, feature, seats ...).
All names of people and companies are put together from syllables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FIRST_NAMES: Final = (
    "Ada", "Bram", "Celia", "Dario", "Edda", "Farid", "Greta", "Hana", "Ilya", "Jonna", "Kenji", "Lena", "Milo",
    "Nadia", "Otto", "Priya", "Quinn", "Rosa", "Samir", "Tilda", "Uma", "Viktor", "Wanda", "Yusuf", "Zora",
    "Anouk", "Bela", "Cormac", "Dilan", "Elif",
)  # fmt: skip
ONSETS: Final = (
    "Bran", "Cal", "Dor", "Fen", "Gal", "Hol", "Jor", "Kes", "Lun", "Mor", "Nar", "Ost", "Pel", "Quor", "Rav",
    "Sel", "Tal", "Ulm", "Ver", "Wex", "Yar", "Zel",
)  # fmt: skip
MIDDLES: Final = (
    "a", "e", "i", "o", "u", "ani", "ebo", "ilu", "ovi", "uma",
)  # fmt: skip
CODAS: Final = (
    "bek", "dane", "fort", "gren", "holt", "kov", "lund", "mir", "nex", "port", "quist", "rane", "sten", "tova",
    "vex", "wick",
)  # fmt: skip
TRADES: Final = (
    "Freight", "Analytics", "Foods", "Robotics", "Clinics", "Energy", "Textiles", "Payments", "Media", "Tools",
    "Logistics", "Labs",
)  # fmt: skip

FEATURES: Final = ("dashboards", "reports", "exports", "automations", "integrations", "forecasts")
INDUSTRIES: Final = ("logistics", "healthcare", "retail", "manufacturing", "financial services", "media", "energy")

GRAMMAR: Final[Mapping[str, tuple[str, ...]]] = {
    "hello": ("Hi", "Hi team", "Hello", "Good morning", "Hi there"),
    "thanks": ("Thanks!", "Thank you, {first}", "Best, {first}", "Appreciate the help.", "Cheers, {first}"),
    "soon": ("next week", "before the end of the month", "next quarter", "after the holidays", "within two weeks"),
    "group": ("warehouse", "finance", "field service", "support", "planning", "regional sales", "procurement"),
    "count": ("six", "eight", "ten", "twelve", "fifteen", "twenty"),
    "prompt": (
        "What would help you most right now?",
        "Tell me what is on your mind.",
        "How are things with {feature}?",
        "What should I take home from this call?",
    ),
    "asked": ("asked", "wanted to know", "raised the question", "wrote to ask", "was keen to hear"),
    # expansion
    "sso_request": (
        "The {role} {asked} whether single sign-on works with their identity provider; security wants SSO and"
        " audit logs before the {group} team joins.",
        "Their security review requires SAML single sign-on, which is only in Enterprise. {first} {asked} how fast we"
        " can switch.",
        "{first} would like SSO and user provisioning for {count} more people from {group}.",
        "They need SSO for a roll-out to {group}; {first} has the budget approved and wants an Enterprise quote.",
    ),
    "seats_needed": (
        "{active} of {seats} seats are in use and the {group} team is waiting. {first} {asked} what {count} more cost.",
        "They run out of seats: {first} had to remove a colleague so that {group} could log in.",
        "{first} wants to add {count} seats {soon} because {group} starts to use {feature}.",
        "Seat limit is in the way. The {role} plans to bring in {group}, about {count} people, {soon}.",
    ),
    "upgrade_price": (
        "{first} asked for a proposal for Enterprise with volume pricing, to be signed {soon}.",
        "They compare Growth and Enterprise; {first} needs numbers for the board {soon}.",
        "Budget for the larger plan is approved; {role} expects an order form {soon}.",
        "{first} asked us to come back with pricing for {count} more seats and premium support.",
    ),
    # risk
    "champion_left": (
        "{champion}, our champion, has left the company. {first} took over and does not know why they chose us.",
        "Learned that {champion} changed jobs last week; nobody owns the tool now. {first} is only minding it.",
        "Auto-reply from {champion}: no longer with the company. {first} is the interim contact and was guarded.",
        "{champion} is gone after the reorganization. {first}, the new {role}, will review all vendors {soon}.",
    ),
    "export_fails": (
        "Export of large {feature} fails with a timeout since the last release. {group} cannot close the month.",
        "The CSV export stops at about half of the rows and gives no error. It worked before the last release.",
        "Scheduled exports have failed every night {since}; {first} sends the files by hand.",
        "Exporting {feature} ends in error 504 again, the third time this month. {first} is losing patience.",
    ),
    "since": ("since the upgrade", "for two weeks", "since Monday", "since the migration", "for days"),
    "pricing_objection": (
        "{first} says the renewal price is too high for what they use and asked for a discount.",
        "Pricing objection: the {role} was offered a cheaper tool and wants us to match it.",
        "{first} finds {amount} a month hard to defend; finance wants to cut software by a fifth.",
        "They call the price per seat too expensive compared with what {group} gets out of it.",
    ),
    "competitor": (
        "They run a trial of another vendor in {group}; decision {soon}.",
        "{first} mentioned that a competing product was demonstrated to {group}.",
        "The {role} asked how to get all their data out, in case they move.",
    ),
    # trouble at the start
    "onboarding_stuck": (
        "The import of their old data stops at the mapping step; {first} has tried three times.",
        "{first} is stuck connecting {feature}; the guide skips the permissions they need.",
        "Kick-off moved again: {group} has no time, and {first} cannot find where to invite users.",
        "Only two people have logged in. {first} asks for a training session for {group}.",
        "They set up {feature} but see no data; {first} suspects the time zone setting.",
    ),
    "dormant_note": (
        "No answer to the last two emails; {first} was out of office.",
        "Wrote to {first} again. The project that used {feature} is on hold until {soon}.",
        "{first} says they will pick it up again {soon}; nothing to do for now.",
        "Quiet account: {group} works in spreadsheets at the moment.",
    ),
    # money
    "card_failed": (
        "The card on file expired; {first} will ask {group} for a new one.",
        "{first} wrote that the bank refused the payment and that they change to invoices.",
        "Payment failed twice. The {role} is on leave and nobody else can approve it.",
        "They moved banks; {first} promised new payment details {soon}.",
    ),
    # daily life
    "check_in": (
        "Regular check-in with {first}: {group} is happy with {feature}, no open points.",
        "Short call. {first} showed how {group} uses {feature} in the weekly review.",
        "{first} praised the new {feature}; two small wishes noted for the product team.",
        "Quarterly review done, goals for {feature} met, next meeting {soon}.",
        "{role} {first} joined for the first time and got an overview of {feature}.",
    ),
    "small_question": (
        "How can {group} share {feature} with people outside the workspace?",
        "Is there a way to rename {feature} in bulk? {first} found only one at a time.",
        "Colours in {feature} differ between the web and the printed version.",
        "The weekly mail of {feature} arrives at the wrong hour for {group}.",
        "A colleague from {group} cannot see {feature} that {first} shared.",
        "Please explain how {feature} rounds numbers; ours differ by a cent.",
    ),
    "curious_sso": (
        "Do you support single sign-on? No plan to switch, {first} only fills in a vendor questionnaire.",
        "{first} asked what Enterprise includes; they stay on their plan for this year.",
        "General question about SSO for a security form; nothing is planned.",
    ),
    "price_grumble": (
        "{first} joked that {amount} a month is a lot but {group} would revolt without {feature}.",
        "A remark on the price, nothing serious; {first} renews as always.",
        "{first} asked whether a discount for paying yearly exists, otherwise content with the price.",
    ),
    # replies of support and closing lines
    "support_reply": (
        "{hello} {first}, thank you for the details. We can reproduce this and will come back {reply_when}.",
        "{hello} {first}, could you send us the name of the workspace and the time when it happened?",
        "{hello} {first}, a fix is on its way; until then, filtering {feature} by month helps.",
        "{hello} {first}, this is a setting: workspace, {feature}, then permissions. Does that help?",
        "{hello} {first}, our engineers look into it. I will keep you posted {reply_when}.",
    ),
    "reply_when": ("today", "tomorrow", "by Friday", "within a day", "as soon as we know more"),
    "customer_reply": (
        "Thanks, that works now.",
        "It still happens for {group}. {thanks}",
        "Sent you a screenshot. {group} waits for this. {thanks}",
        "Understood, we try that and come back to you. {thanks}",
        "Any news? {group} asks me every morning. {thanks}",
    ),
}

SAID: Final[Mapping[str, tuple[str, ...]]] = {
    "sso_request": (
        "our security team will only let {group} in with single sign-on and audit logs, so we need to talk about"
        " Enterprise {soon}.",
        "how quickly could we get SSO with SAML? I have {count} people from {group} waiting for it.",
        "SSO is the last open point in our security review; the budget is there. Can you send an offer?",
        "we would move to Enterprise for SSO and provisioning if it can be live {soon}.",
    ),
    "seats_needed": (
        "we are at {active} of {seats} seats and {group} wants to join. What do {count} more cost?",
        "I had to take a seat from a colleague so that {group} could look at {feature}; we need more.",
        "please add {count} seats {soon}, {group} has started to plan with {feature}.",
    ),
    "upgrade_price": (
        "could you send a proposal for Enterprise? I would like to sign {soon}.",
        "my board wants the numbers for the larger plan with {count} more seats {soon}.",
        "the larger plan is in our budget now, what do you need from me for an order form?",
    ),
    "champion_left": (
        "{champion} is no longer with us and I have inherited the tool, to be honest without a handover.",
        "I took over from {champion}. I need to understand what {group} gets out of this before I keep paying.",
        "since {champion} left nobody here really knows the set-up; I review all vendors {soon}.",
    ),
    "pricing_objection": (
        "{amount} a month is too expensive for how little {group} uses it now. What can you do?",
        "we were offered a cheaper tool; without a discount I cannot justify the renewal.",
        "finance asks me to cut software by a fifth, and your price stands out.",
    ),
    "competitor": (
        "{group} tries another tool at the moment and we decide {soon}.",
        "how would we get all our data out if we decided to move?",
    ),
    "onboarding_stuck": (
        "our import has stopped at the mapping step three times, can somebody walk me through it?",
        "I cannot connect {feature}; which permissions does the account need?",
        "only two of us have logged in so far. Could you train {group} {soon}?",
    ),
    "dormant_note": (
        "the project is on hold, let us speak again {soon}.",
        "{group} went back to spreadsheets for now; I will come back to you {soon}.",
    ),
    "card_failed": (
        "our card expired and {group} has to approve the new one, please give us some days.",
        "the bank refused the payment; can we change to invoices?",
        "we moved banks, the new payment details follow {soon}.",
    ),
    "check_in": (
        "all good here, {group} uses {feature} every week.",
        "the new {feature} are a step forward, {group} likes them.",
        "nothing urgent from our side; let us meet again {soon}.",
        "one small wish: {feature} should remember the last filter.",
    ),
    "curious_sso": (
        "I am filling in a vendor form: do you support single sign-on? We stay on our plan.",
        "what is in Enterprise? Just for my overview, nothing is planned.",
    ),
    "price_grumble": (
        "{amount} is a proud price, but {group} would not give {feature} away.",
        "is there a discount for paying yearly? We renew either way.",
    ),
}
"""What the customer says in an email or a call, in the first person, lower case at the start."""

SUBJECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "sso_request": ("SSO and audit logs", "Single sign-on for {group}", "Enterprise requirements"),
    "seats_needed": ("More seats for {group}", "Seat limit reached", "Adding {group}"),
    "upgrade_price": ("Enterprise quote", "Pricing for the larger plan", "Proposal {soon}"),
    "champion_left": ("Change of contact", "{champion} has left", "New owner of the account"),
    "export_fails": ("Export of {feature} fails", "Export timeout", "Incomplete CSV export"),
    "pricing_objection": ("Renewal price", "Pricing concerns", "Discount request"),
    "competitor": ("Vendor comparison", "Other tool in trial", "Data export before decision"),
    "onboarding_stuck": ("Setup of {feature}", "Import does not finish", "Help with getting started"),
    "dormant_note": ("No answer", "Project on hold", "Quiet account"),
    "card_failed": ("Payment failed", "New payment details", "Card expired"),
    "check_in": ("Check-in", "Quarterly review", "Using {feature}"),
    "small_question": ("Question about {feature}", "How to: {feature}", "Small issue with {feature}"),
    "curious_sso": ("Vendor questionnaire", "Question on plans", "SSO question"),
    "price_grumble": ("Renewal", "About the price", "Yearly payment"),
}
