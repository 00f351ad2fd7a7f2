# Written by `python -m tools.stub` from the table in __init__.py.

from lmstudio_integrations.langchain.chat_models import ChatLMStudio as ChatLMStudio
from lmstudio_integrations.langchain.classifiers import LMStudioClassifier as LMStudioClassifier
from lmstudio_integrations.langchain.embeddings import LMStudioEmbeddings as LMStudioEmbeddings
from lmstudio_integrations.langchain.llms import LMStudioLLM as LMStudioLLM
from lmstudio_integrations.langchain.rerankers import LMStudioReranker as LMStudioReranker
from lmstudio_integrations.langchain.toolkit import LMStudioToolkit as LMStudioToolkit
from lmstudio_integrations.langchain._registration import register as register
