"""Embeddings as OpenAI has them, which others share.

Sources: https://platform.openai.com/docs/api-reference/embeddings, https://openrouter.ai/docs/api-reference/embeddings,
https://docs.mistral.ai/api/endpoint/embeddings.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .embedding import vector_of
from .openai_dialect import ChatCompletionsCodec
from .ports import EncodedCall
from .types import EmbeddingRequest, ProviderEmbeddings


class EmbeddingsCodec(ChatCompletionsCodec):
    """The dialect of a vendor that has embeddings too. Class attributes name what is called otherwise."""

    embeddings_path: ClassVar[str] = "/embeddings"
    dimensions_field: ClassVar[str] = "dimensions"
    embeddings_user_field: ClassVar[str | None] = "user"

    def encode_embeddings(self, request: EmbeddingRequest) -> EncodedCall:
        """`options` go over the body, field by field."""
        fields: dict[str, Any] = {self.dimensions_field: request.dimensions}
        if self.embeddings_user_field:
            fields[self.embeddings_user_field] = request.end_user
        asked = {name: value for name, value in fields.items() if value is not None}
        body = {"model": request.model, "input": list(request.inputs), **asked, **request.options}
        return EncodedCall(self.embeddings_path, body)

    def decode_embeddings(self, payload: Any) -> ProviderEmbeddings:
        """Each vector tells its place by its `index`."""
        if not isinstance(payload, dict):
            raise self.malformed("an answer is not an object")
        if error := self.carried_error(payload):
            raise error
        found = list(self.objects(payload, "data"))
        places = [self.count(each, "index") for each in found]
        if sorted(places) != list(range(len(found))):
            raise self.malformed("the vectors' places are not those of the inputs")
        vectors = {place: vector_of(each.get("embedding")) for place, each in zip(places, found, strict=True)}
        ordered = [vectors[place] for place in range(len(found))]
        if None in ordered:
            raise self.malformed("a vector is not a list of numbers")
        whole = tuple(vector for vector in ordered if vector is not None)
        return ProviderEmbeddings(whole, self.usage(payload), self.typed(payload, "model", str) or None)
