# %% [markdown]
# # RAG over PDF files with Chroma in LangChain
#
# Answer questions from PDF files, with the page as the source: `pypdf` reads the
# text, LM Studio embeds it, and Chroma stores the vectors on disk. Later runs open
# the database again and embed only what is new.

# %%
import tempfile
from hashlib import sha256
from pathlib import Path

from chromadb.api.client import Client
from chromadb.config import Settings
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter
from pypdf import PdfReader

import lmstudio_integrations as lms
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

# %% [markdown]
# Load a language model and an embedding model; any will do. Neither unloads the
# other. If you name them, they stay loaded too: `LMStudioEmbeddings` loads its
# model explicitly, and LM Studio evicts only models that were loaded just in time.

# %%
try:
    print("Model:", lms.llm().get_info().model_key)
    print("Embedding model:", lms.embedding_model().get_info().model_key)
except lms.LMStudioError as error:
    raise SystemExit(error) from None

model = ChatLMStudio(temperature=0)
embeddings = LMStudioEmbeddings()

# %% [markdown]
# ## Read and split
#
# Each page is split on its own, so a chunk belongs to one page and can be cited.
# The chunks are short enough for small embedding models, which often read no more
# than 256 tokens.
#
# The ID of a chunk is made of its file, page and text: the same chunk has the same
# ID tomorrow, and a changed one has a new ID.

# %%
splitter = RecursiveCharacterTextSplitter(chunk_size=250, chunk_overlap=40)


def read_pdf(path: Path) -> dict[str, Document]:
    """Return the chunks of a PDF file by their IDs."""
    pages = [
        Document(page.extract_text(), metadata={"file": path.name, "page": number})
        for number, page in enumerate(PdfReader(path).pages, 1)
    ]
    return {chunk_id(chunk): chunk for chunk in splitter.split_documents(pages)}


def chunk_id(chunk: Document) -> str:
    """Return an ID that depends on the file, the page and the text only."""
    digest = sha256(chunk.page_content.encode()).hexdigest()[:16]
    return f"{chunk.metadata['file']}:{chunk.metadata['page']}:{digest}"


# %% [markdown]
# ## Add and update
#
# `add_documents` would embed every chunk again, also those that the database has.
# So ask for the known IDs first, add the others, and delete the chunks that the
# file no longer contains.


# %%
def update(store: Chroma, path: Path) -> int:
    """Bring the database up to date with a file; return how many chunks are new."""
    chunks = read_pdf(path)
    known = set(store.get(where={"file": path.name}, include=[])["ids"])
    new = [each for each in chunks if each not in known]
    outdated = list(known - chunks.keys())
    if new:
        store.add_documents([chunks[each] for each in new], ids=new)
    if outdated:
        store.delete(outdated)
    print(f"{path.name}: {len(new)} chunks are new, {len(outdated)} deleted")
    return len(new)


# %% [markdown]
# The database is a folder. This recipe uses a temporary one; in your program, take
# one that stays. Vectors of different embedding models cannot be compared, so use
# another collection for another model.
#
# Chroma sends usage data to its makers unless `anonymized_telemetry` is off.

# %%
temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
settings = Settings(
    is_persistent=True, persist_directory=temporary.name, anonymized_telemetry=False
)
client = Client(settings=settings)
store = Chroma("town", embeddings, client=client)

files = sorted(Path("data").glob("*.pdf"))
added = sum(update(store, path) for path in files)
assert added == len(store.get(include=[])["ids"])

# %% [markdown]
# ## Open it again
#
# This is what the next run of your program does. All chunks are there, so nothing
# is embedded.

# %%
client.close()
client = Client(settings=settings)
store = Chroma("town", embeddings, client=client)

assert sum(update(store, path) for path in files) == 0
assert len(store.get(include=[])["ids"]) == added

# %% [markdown]
# ## Ask
#
# The source is the page that the model was given. It comes from the database, so it
# is right even if the model is small and would cite badly. A very small model reads
# one chunk well, as here; give a larger one more, for example `k=4`.

# %%
PROMPT = """Answer the question from the text, in one sentence.

Text:
{text}

Question: {question}"""


def respond(question: str, k: int = 1) -> list[str]:
    """Print a response and its sources; return the sources."""
    found = store.similarity_search(question, k=k)
    text = "\n\n".join(chunk.page_content for chunk in found)
    response = model.invoke(PROMPT.format(text=text, question=question))
    print("Response:", response.text)
    pages = [(chunk.metadata["file"], chunk.metadata["page"]) for chunk in found]
    sources = [f"{file}, page {page}" for file, page in sorted(set(pages))]
    print(f"Source: {'; '.join(sources)}\n")
    return sources


for question, source in (
    ("How long is lost property kept?", "ferry.pdf, page 3"),
    ("For how many weeks are books lent?", "library.pdf, page 1"),
):
    if source not in respond(question):
        raise SystemExit("The wrong page was found; take a larger embedding model.")

# %%
client.close()
temporary.cleanup()
