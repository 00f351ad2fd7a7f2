# %% [markdown]
# # RAG over PDF files with Chroma in LangChain
#
# Answer from PDF files, with the page as the source. Chroma stores the vectors on
# disk, and later runs embed only what is new.

# %%
from hashlib import sha256
from pathlib import Path

from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter
from pypdf import PdfReader

from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

model = ChatLMStudio(model="smollm2-135m-instruct", temperature=0)
embeddings = LMStudioEmbeddings(model="text-embedding-all-minilm-l6-v2")

# %% [markdown]
# ## Read and split
#
# A chunk belongs to one page, so it can be cited. Its ID is made of its file, page
# and text: the same chunk has the same ID tomorrow.

# %%
splitter = RecursiveCharacterTextSplitter(chunk_size=250, chunk_overlap=40)


def chunk_id(chunk: Document) -> str:
    """Return the ID of a chunk."""
    digest = sha256(chunk.page_content.encode()).hexdigest()[:16]
    return f"{chunk.metadata['file']}:{chunk.metadata['page']}:{digest}"


def read_pdf(path: Path) -> dict[str, Document]:
    """Return the chunks of a PDF file by their IDs."""
    pages = [
        Document(page.extract_text(), metadata={"file": path.name, "page": number})
        for number, page in enumerate(PdfReader(path).pages, 1)
    ]
    return {chunk_id(chunk): chunk for chunk in splitter.split_documents(pages)}


# %% [markdown]
# ## Add and update
#
# `add_documents` would embed every chunk again, so ask for the known IDs first.


# %%
def update(store: Chroma, path: Path) -> int:
    """Add a file, or what changed in it; return how many chunks are new."""
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
# The vectors of another embedding model need another collection.

# %%
store = Chroma("town", embeddings, persist_directory="output/chroma")

files = sorted(Path("data").glob("*.pdf"))
for path in files:
    update(store, path)

# %% [markdown]
# The next run finds all chunks there, and embeds nothing.

# %%
for path in files:
    update(store, path)

# %% [markdown]
# ## Ask
#
# Give a model that is larger than this one more chunks, such as `k=4`.

# %%
PROMPT = """Answer the question from the text, in one sentence.

Text:
{text}

Question: {question}"""

question = "How long is lost property kept?"
found = store.similarity_search(question, k=1)
text = "\n\n".join(chunk.page_content for chunk in found)
response = model.invoke(PROMPT.format(text=text, question=question))
print("Response:", response.text)
for chunk in found:
    print(f"Source: {chunk.metadata['file']}, page {chunk.metadata['page']}")
