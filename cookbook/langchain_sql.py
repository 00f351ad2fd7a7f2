# %% [markdown]
# # Query a SQL database with an agent in LangChain
#
# The agent writes SQL for a question (text to SQL), and answers from the rows. It
# can change nothing in the database. The model must be trained for tool use.

# %%
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage

from lmstudio_integrations.langchain import ChatLMStudio

# %% [markdown]
# ## The database
#
# In your program, `DATABASE` is the path of yours.

# %%
TABLES = """
CREATE TABLE ferries (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE departures (
    ferry_id INTEGER REFERENCES ferries (id),
    day TEXT, -- YYYY-MM-DD
    destination TEXT,
    passengers INTEGER
);
INSERT INTO ferries VALUES (1, 'Petrel'), (2, 'Gannet');
INSERT INTO departures VALUES
    (1, '2026-06-06', 'island', 250),
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
# A read-only connection could attach another file, and write to that, so the
# authorizer allows only what a `SELECT` needs. The progress handler ends a
# statement that takes too many steps.

# %%
ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


def authorize(action: int, *_: str | None) -> int:
    """Return whether SQLite may do something."""
    return sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY


def read(sql: str) -> list[str]:
    """Return the names of the columns and the first rows."""
    uri = f"{DATABASE.as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.set_authorizer(authorize)
        connection.set_progress_handler(lambda: 1, 10_000_000)
        cursor = connection.execute(sql)
        rows = [[column[0] for column in cursor.description or ()]]
        rows += cursor.fetchmany(20)
    return [" | ".join(map(str, row)) for row in rows]


# %% [markdown]
# ## The tools
#
# The model reads an error like any other result, and corrects its SQL.


# %%
def describe_tables() -> str:
    """Return the statements that created the tables, with their columns."""
    return "\n".join(read("SELECT sql FROM sqlite_master")[1:])


def run_sql(sql: str) -> str:
    """Run one SELECT statement of SQLite and return its first rows."""
    try:
        return "\n".join(read(sql))
    except sqlite3.Error as error:
        return f"Error: {error}"


print(run_sql("DELETE FROM departures"))
print(run_sql("ATTACH DATABASE 'other.db' AS other"))

# %% [markdown]
# ## The agent

# %%
agent = create_agent(
    ChatLMStudio(model="qwen/qwen3-4b", temperature=0),
    tools=[describe_tables, run_sql],
    system_prompt="Look at the tables, run SQL, and answer in one sentence.",
)
question = HumanMessage(
    "Which ferry carried the most passengers to the island in June 2026?"
)
messages = agent.invoke({"messages": [question]})["messages"]

for message in messages:
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            print("Tool call:", call["name"], *call["args"].values())
print("Response:", messages[-1].text)
temporary.cleanup()
