"""Case 33 of fine-tuning: a template's marks and the spans that are found without them say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chat_samples import CHATML, LLAMA3, TOOLS, UNMARKED, call, turns

from titanflow.config.keys.training import Data
from titanflow.data.chat.encoder import ChatEncoder
from titanflow.data.chat.layout import ChatFormat, Conversation
from titanflow.data.tokenizer.tokenizer import LoadedTokenizer

MARKED = UNMARKED.replace(
    "{{ m.role }}\n{{ m.content or '' }}",
    "{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content or '' }}",
).replace(
    "<|im_end|>\n{% endfor %}",
    "<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}",
)
CONVERSATIONS = {
    "one": turns("What is it?", "A class."),
    "several": turns("What is it?", "A class.", "Where?", "In json.", system="Be brief."),
    "consecutive": [*turns("Go", "First."), {"role": "assistant", "content": "Second."}, *turns("More", "Third.")],
    "tools": [
        *turns("Weather?"),
        call("weather", city="Köln"),
        {"role": "tool", "content": "sun"},
        *turns("Q", "A")[1:],
    ],
    "empty": turns("Q", "", "More", "\n\n A \n"),
    "unicode": turns("🙃", "Größe 你好 👩‍👩‍👧"),
    "quoted": turns("Say <|im_end|>", "<|im_end|>\n<|im_start|>user\n<|im_end|>", "Q", "A"),
    "a question at last": turns("Q", "A", "B"),
}


@pytest.mark.parametrize("turns_trained", ["all", "last"])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_case_33_the_mask_of_marks_is_that_of_spans(
    llama3_tokenizer: LoadedTokenizer, name: str, turns_trained: Any
) -> None:
    chat = Conversation(CONVERSATIONS[name])
    marked = ChatEncoder(llama3_tokenizer, MARKED, turns=turns_trained).encode(chat)
    unmarked = ChatEncoder(llama3_tokenizer, UNMARKED, turns=turns_trained).encode(chat)
    assert marked.ids.tolist() == unmarked.ids.tolist()
    assert np.array_equal(marked.trained, unmarked.trained)
    # The built-in templates' marks are theirs, too: without them the same tokens are found.
    for template in (CHATML, LLAMA3):
        bare = template.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
        first = ChatEncoder(llama3_tokenizer, template, turns=turns_trained).encode(chat)
        second = ChatEncoder(llama3_tokenizer, bare, turns=turns_trained).encode(chat)
        assert first.ids.tolist() == second.ids.tolist()
        assert np.array_equal(first.trained, second.trained)


def test_the_format_reads_what_the_cases_give() -> None:
    row = {"messages": CONVERSATIONS["tools"], "tools": TOOLS}
    assert ChatFormat.of(Data(kind="chat")).conversation(row).problems == []
