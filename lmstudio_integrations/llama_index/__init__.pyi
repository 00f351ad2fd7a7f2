# Written by `python -m tools.stub` from the table in __init__.py.

from lmstudio_integrations.llama_index.llms import LMStudio as LMStudio
from lmstudio_integrations.llama_index.embeddings import LMStudioEmbedding as LMStudioEmbedding
from lmstudio_integrations.llama_index.decisions import LMStudioEvaluator as LMStudioEvaluator, LMStudioSelector as LMStudioSelector
from lmstudio_integrations.llama_index.rerankers import LMStudioReranker as LMStudioReranker
from lmstudio_integrations.llama_index.tokenizer import LMStudioTokenizer as LMStudioTokenizer
from lmstudio_integrations.llama_index.tool_spec import LMStudioToolSpec as LMStudioToolSpec
from lmstudio_integrations.llama_index._errors import LlamaIndexToolCallError as LlamaIndexToolCallError
from lmstudio_integrations.llama_index._registration import register as register
