# %% [markdown]
# # Query a SQL database with an agent in LangChain
#
# The agent looks at the tables of a SQLite database, writes SQL, and answers from
# the rows. It can read everything, and change nothing.

# %%
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from langchain.agents import create_agent

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# The loaded model must be trained for tool use.

# %%
try:
    info = lms.llm().get_info()
except lms.LMStudioError as error:
    raise SystemExit(error) from None
print("Model:", info.model_key)
if not info.trained_for_tool_use:
    able = [m for m in lms.list_downloaded_models("llm") if m.trained_for_tool_use]
    names = ", ".join(m.model_key for m in able) or "none"
    raise SystemExit(f"This recipe needs tool use; your models with it: {names}.")

# %% [markdown]
# ## The database
#
# Two small tables. In your program, `DATABASE` is the path of yours.

# %%
TABLES = """
CREATE TABLE ferries (
    id INTEGER PRIMARY KEY,
    name TEXT
);
CREATE TABLE departures (
    ferry_id INTEGER REFERENCES ferries (id),
    day TEXT, -- YYYY-MM-DD
    destination TEXT,
    passengers INTEGER
);
INSERT INTO ferries VALUES (1, 'Petrel'), (2, 'Gannet');
INSERT INTO departures VALUES
    (1, '2026-06-06', 'island', 140),
    (1, '2026-06-07', 'island', 110),
    (1, '2026-07-04', 'island', 60),
    (2, '2026-06-06', 'lighthouse', 215),
    (2, '2026-06-13', 'island', 190),
    (2, '2026-07-04', 'island', 205);
"""

temporary = tempfile.TemporaryDirectory()
DATABASE = Path(temporary.name, "ferries.db")
with closing(sqlite3.connect(DATABASE)) as connection:
    connection.executescript(TABLES)

# %% [markdown]
# ## Read only
#
# A read-only connection is not enough: SQL can attach another file, and write to
# that one. The authorizer allows only what a `SELECT` needs. The progress handler
# ends a statement that takes too many steps, such as a join of everything with
# everything. Each call has a connection of its own, because the agent runs tools in
# several threads.

# %%
ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
MAX_STEPS = 10_000_000
MAX_ROWS = 20


def authorize(action: int, *_: str | None) -> int:
    """Return whether SQLite may do something."""
    return sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY


def read(sql: str, *parameters: str) -> list[str]:
    """Return the names of the columns and the first rows, one line each."""
    uri = f"{DATABASE.as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.set_authorizer(authorize)
        connection.set_progress_handler(lambda: 1, MAX_STEPS)
        cursor = connection.execute(sql, parameters)
        rows = [[column[0] for column in cursor.description or ()]]
        rows += cursor.fetchmany(MAX_ROWS)
        more = ["(more rows were left out)"] if cursor.fetchone() else []
    return [" | ".join(map(str, row)) for row in rows] + more


# %% [markdown]
# ## The tools
#
# An error of SQLite is a result like any other: the model reads it, and corrects
# its SQL.


# %%
def list_tables() -> str:
    """Return the names of all tables."""
    tables = read("SELECT name FROM sqlite_master WHERE type = 'table'")
    return ", ".join(tables[1:])


def describe_table(table: str) -> str:
    """Return the statement that created a table: its columns and their types."""
    found = read("SELECT sql FROM sqlite_master WHERE name = ?", table)[1:]
    return found[0] if found else f"There is no table {table!r}."


def run_sql(sql: str) -> str:
    """Run one SELECT statement of SQLite and return its rows."""
    try:
        return "\n".join(read(sql))
    except sqlite3.Error as error:
        return f"Error: {error}"


# %% [markdown]
# Statements that write or never end are errors.

# %%
for sql in (
    "DELETE FROM departures",
    "ATTACH DATABASE 'other.db' AS other",
    "WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT sum(1) FROM n",
):
    result = run_sql(sql)
    print(f"SQL: {sql}\nResult: {result}")
    assert result.startswith("Error")

# %% [markdown]
# ## The agent

# %%
agent = create_agent(
    ChatLMStudio(temperature=0),
    tools=[list_tables, describe_table, run_sql],
    system_prompt="Answer from the database, in one sentence. Look at its tables "
    "before you write SQL, and run your SQL before you answer.",
)
text = "Which ferry carried the most passengers to the island in June 2026?"
question: Any = {"messages": [("user", text)]}
messages = agent.invoke(question)["messages"]

print("Question:", text)
for message in messages[1:]:
    for call in getattr(message, "tool_calls", []):
        print("Tool call:", call["name"], *call["args"].values())
    if message.type == "tool":
        print("Tool result:", message.text)
print("Response:", messages[-1].text)

temporary.cleanup()
if "run_sql" not in {message.name for message in messages}:
    raise SystemExit("The model did not run SQL; take a larger model.")
if "Petrel" not in messages[-1].text:
    raise SystemExit("The model did not find the right ferry; take a larger model.")
