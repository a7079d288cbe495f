"""Templates written for the tests, each with what is special about a published model's: its traits, not its words."""

from __future__ import annotations

TOKENS = (
    *("<|begin|>", "<|role|>", "<|/role|>", "<|eot|>", "<|user|>", "<|assistant|>", "<|end|>", "<|channel|>"),
    *("<|said|>", "<|/said|>", "<|return|>", "<|call|>", "<|calls|>", "<|/calls|>", "[INST]", "[/INST]"),
)

ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_CALLS = "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
_ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}{% endfor %}"
)
_LAST_USER = (
    "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
)
_THOUGHTS = (
    "{% set told = m.reasoning_content or '' %}{% set said = m.content or '' %}"
    "{% if '</think>' in said %}{% set told = said.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set said = said.split('</think>')[-1].lstrip() %}{% endif %}"
)

LLAMA31 = (
    "<|begin|><|role|>system<|/role|>{{ date_string | default('26 Jul 2024') }}\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}<|eot|>"
    "{% for m in messages if m.role != 'system' %}<|role|>{{ m.role }}<|/role|>"
    "{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}{{ raise_exception('one call at once') }}{% endif %}"
    "{{ m.tool_calls[0].function | tojson }}{% else %}{{ m.content }}{% endif %}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|role|>assistant<|/role|>{% endif %}"
)
LLAMA32 = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}" + LLAMA31
QWEN25 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}" + _CALLS + "<|im_end|>\n{% endfor %}" + ASKS
)
QWEN3 = (
    _LAST_USER + "{% for m in messages %}" + _THOUGHTS + "<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or told) %}"
    "<think>\n{{ told }}\n</think>\n\n{% endif %}{{ said }}" + _CALLS + "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
QWEN3_INSTRUCT = QWEN25
QWEN3_THINKING = QWEN3.split("{% if add_generation_prompt %}")[0] + ASKS.replace("assistant\n", "assistant\n<think>\n")
GEMMA2 = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    + _ALTERNATES
    + "{% for m in messages %}<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
GEMMA3 = (
    "{% set first = '' %}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% endif %}"
    + _ALTERNATES
    + "{% for m in messages %}<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first }}{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
MISTRAL = (
    "{% set system = '' %}{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|begin|>' }}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {{ system if loop.last }}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
"""The system's words stand before a question that comes last, and nowhere once an answer follows."""
MISTRAL_SMALL = (
    "<|begin|>{% if messages[0].role != 'system' %}Today is {{ strftime_now('%Y-%m-%d') }}.{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.tool_calls %}"
    "{% if (m.tool_calls[0].id or '') | length < 9 %}{{ raise_exception('an id has 9 letters') }}{% endif %}"
    "{{ m.tool_calls[0] | tojson }}{{ eos_token }}{% else %}{{ m.content }}"
    "{{ eos_token if m.role == 'assistant' }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ eos_token }}{% endif %}"
)
PHI35 = PHI3.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' or m.content %}")
PHI4_FIRST = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}<|im_end|>"
    "{% else %}<|im_start|>{{ m.role }}{{ m.content }}<|im_end|>"
    "{% if m.role == 'user' %}<|im_start|>assistant{% endif %}{% endif %}{% endfor %}"
)
"""Writes the header with each question, asked or not."""
PHI4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
PHI4_MINI = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content }}" + _CALLS + "<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% else %}{{ eos_token }}{% endif %}"
)
DEEPSEEK_V3 = (
    "{% set ns = namespace(called=false) %}{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}"
    "{% elif m.tool_calls %}{% if not ns.called %}<|assistant|>{% endif %}{% set ns.called = true %}"
    "<|calls|>{% for c in m.tool_calls %}"
    "{{ c.function.name + '\n' + c.function.arguments }}<|call|>{% endfor %}<|/calls|>{{ eos_token }}"
    "{% elif m.role == 'assistant' %}<|assistant|>{{ m.content.split('</think>')[-1] }}{{ eos_token }}"
    "{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Gives a second call in a conversation no header."""
DEEPSEEK_R1 = DEEPSEEK_V3.removesuffix("{% endif %}") + "<think>\n{% endif %}"
DEEPSEEK_V31 = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}"
    "{% else %}<|assistant|></think>{% if m.tool_calls %}<|calls|>{{ m.tool_calls[0].function.name + '\n' "
    "+ m.tool_calls[0].function.arguments }}<|/calls|>{% else %}{{ m.content.split('</think>')[-1] }}{% endif %}"
    "{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ '<think>' if thinking is defined and thinking else '</think>' }}"
    "{% endif %}"
)
SMOLLM3 = (
    "{% set mode = enable_thinking if enable_thinking is defined else true %}"
    "<|im_start|>system\n{{ strftime_now('%d %B %Y') }}{{ ' think' if mode }}<|im_end|>\n"
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}"
    "{% if not mode %}<think>\n\n</think>\n{% endif %}{{ m.content }}<|im_end|>{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>\n\n</think>\n' if not mode }}{% endif %}"
)
GPT_OSS = (
    "<|im_start|>system<|said|>{{ strftime_now('%Y-%m-%d') }}<|end|>"
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% set ns = namespace(answered=false) %}{% for later in messages[loop.index:] %}"
    "{% if later.role == 'assistant' and not later.tool_calls %}{% set ns.answered = true %}{% endif %}{% endfor %}"
    "{% if m.thinking and (not ns.answered if m.tool_calls else loop.last) %}"
    "<|im_start|>assistant<|channel|>analysis<|said|>{{ m.thinking }}<|end|>{% endif %}"
    "{% if m.tool_calls %}<|im_start|>assistant to={{ m.tool_calls[0].function.name }}<|channel|>commentary<|said|>"
    "{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% else %}<|im_start|>assistant<|channel|>final<|said|>{{ m.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% endif %}"
    "{% else %}<|im_start|>{{ m.role }}<|said|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
"""Drops the thoughts of earlier answers, and those of a call once an answer follows."""
GLM4 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
COMMAND_R = (
    _ALTERNATES + "{{ '<|begin|>' }}{% for m in messages %}<|role|>{{ m.role }}<|/role|>{{ m.content }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|role|>assistant<|/role|>{% endif %}"
)
COMMAND_R_TOOLS = (
    "{{ '<|begin|>' }}{% for m in messages %}<|role|>{{ m.role }}<|/role|>{{ m.content }}<|eot|>{% endfor %}"
    "<|role|>assistant<|/role|>"
)
"""Asks for another answer behind every conversation."""
COMMAND_R7B = (
    "{{ '<|begin|>' }}{% for m in messages %}<|role|>{{ m.role }}<|/role|>"
    "{% if m.role == 'assistant' %}<|said|>{{ m.content }}<|/said|>{% else %}{{ m.content }}{% endif %}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|role|>assistant<|/role|>{% endif %}"
)
"""Marks an answer's text within its turn."""
LFM2_FIRST = (
    "{{ '<|begin|>' }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}<|im_end|>\n{% endfor %}"
    + ASKS
)
"""Writes no calls."""
LFM25 = (
    "{{ '<|begin|>' }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}"
    "{% if m.thinking and loop.last %}<think>{{ m.thinking }}</think>{% endif %}{{ m.content }}<|im_end|>"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}" + ASKS
)
"""Marked, and of earlier answers it drops the thoughts."""
LFM2 = (
    "{{ '<|begin|>' }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.tool_calls %}<|calls|>[{{ m.tool_calls[0].function | tojson }}]<|/calls|>{% endif %}"
    "{{ m.content or '' }}<|im_end|>\n{% endfor %}" + ASKS
)
