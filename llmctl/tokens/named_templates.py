"""Chat templates that llmctl writes itself, in Jinja, by the names of `TemplateName`.

olmo     ChatML as Olmo 3 has it: functions in the system turn, results of tools from `environment`, calls as Python writes
         them; an answer that others follow is closed by <|im_end|>, the last one by the end-of-text token
chatml   <|im_start|>role ... <|im_end|>, tools as Hermes and Qwen write them
llama3   <|start_header_id|>role<|end_header_id|> ... <|eot_id|>
gemma    <start_of_turn>user, <start_of_turn>model ... <end_of_turn>; the system turn stands in the first question
mistral  [INST] ... [/INST]; the system turn stands in the first question
tulu     <|role|> as plain text; the end-of-text token closes an answer
simple   User: ... Assistant: ...; the end-of-text token closes an answer

Thinking is written between <think> and </think> in every turn, so that all that a model wrote is trained on. A template
that has no form for tools refuses conversations that have some.
"""

_MACROS = r"""
{%- macro thought(message) -%}
{%- if message.reasoning_content -%}{{ '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}{%- endif -%}
{%- endmacro -%}
{%- macro unknown(message) -%}
{{ raise_exception('this template has no role "' + message.role + '"') }}
{%- endmacro -%}
{%- macro no_tools(name) -%}
{%- if tools or messages | selectattr('tool_calls') | list or messages | selectattr('role', 'equalto', 'tool') | list -%}
{{ raise_exception('the template ' + name + ' has no form for tools; use olmo, chatml, llama3 or mistral') }}
{%- endif -%}
{%- endmacro -%}
{%- macro called(function, key) -%}
{{ '{"name": ' + function.name | tojson + ', "' + key + '": ' + function.arguments | tojson + '}' }}
{%- endmacro -%}
{%- set begin = bos_token or '' -%}
"""

OLMO = (
    _MACROS
    + r"""
{%- macro functions() -%}
{%- if tools -%}
{{ ' You are provided with function signatures within <functions></functions> tags. You may call one or more functions, one '
   'a line, between <function_calls> and </function_calls>. <functions>' + tools | tojson + '</functions>' }}
{%- else -%}
{{ ' You do not currently have access to any functions. <functions></functions>' }}
{%- endif -%}
{%- endmacro -%}
{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\nYou are a helpful function-calling AI assistant.' + functions() + '<|im_end|>\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{ '<|im_start|>system\n' + message.content + (functions() if loop.first else '') + '<|im_end|>\n' }}
{%- elif message.role == 'user' -%}
{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'tool' -%}
{{ '<|im_start|>environment\n' + message.content + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' -%}
{{ '<|im_start|>assistant\n' + thought(message) + message.content }}
{%- if message.tool_calls -%}
{{ '<function_calls>' }}
{%- for call in message.tool_calls -%}
{{ ('' if loop.first else '\n') + call.function.name + '(' }}
{%- for key, value in call.function.arguments.items() -%}
{{ ('' if loop.first else ', ') + key + '=' + value | tojson }}
{%- endfor -%}
{{ ')' }}
{%- endfor -%}
{{ '</function_calls>' }}
{%- endif -%}
{{ eos_token if loop.last else '<|im_end|>\n' }}
{%- else -%}{{ unknown(message) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""
)

CHATML = (
    _MACROS
    + r"""
{%- macro functions() -%}
{{ '# Tools\n\nYou may call functions. Their signatures are between <tools> and </tools>:\n<tools>' }}
{%- for tool in tools -%}{{ '\n' + tool | tojson }}{%- endfor -%}
{{ '\n</tools>\n\nFor each call write a JSON object with its name and arguments between <tool_call> and </tool_call>.' }}
{%- endmacro -%}
{%- if tools and messages[0].role != 'system' -%}
{{ '<|im_start|>system\n' + functions() + '<|im_end|>\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role not in ('system', 'user', 'assistant', 'tool') -%}{{ unknown(message) }}{%- endif -%}
{{ '<|im_start|>' + message.role + '\n' + thought(message) + message.content }}
{%- if message.role == 'system' and loop.first and tools -%}{{ '\n\n' + functions() }}{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{{ ('' if loop.first and not message.content else '\n') + '<tool_call>\n' + called(call.function, 'arguments') }}
{{- '\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""
)

LLAMA3 = (
    _MACROS
    + r"""
{%- macro header(role) -%}
{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' }}
{%- endmacro -%}
{%- macro functions() -%}
{{ 'You may call the functions below. For each call write, on a line of its own, a JSON object with its name and parameters.' }}
{%- for tool in tools -%}{{ '\n\n' + tool | tojson(indent=4) }}{%- endfor -%}
{%- endmacro -%}
{{ begin }}
{%- if tools and messages[0].role != 'system' -%}{{ header('system') + functions() + '<|eot_id|>' }}{%- endif -%}
{%- for message in messages -%}
{%- if message.role in ('system', 'user') -%}
{{ header(message.role) + message.content | trim }}
{%- if message.role == 'system' and loop.first and tools -%}{{ '\n\n' + functions() }}{%- endif -%}
{%- elif message.role == 'tool' -%}{{ header('ipython') + message.content | trim }}
{%- elif message.role == 'assistant' -%}
{{ header('assistant') + thought(message) + message.content | trim }}
{%- for call in message.tool_calls or [] -%}
{{ ('' if loop.first and not message.content | trim else '\n') + called(call.function, 'parameters') }}
{%- endfor -%}
{%- else -%}{{ unknown(message) }}
{%- endif -%}
{{ '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ header('assistant') }}{%- endif -%}
"""
)

# Where the first question takes up the system turn.
_FOLDED = r"""
{%- set turns = messages[1:] if messages[0].role == 'system' else messages -%}
{%- set first = messages[0].content | trim + '\n\n' if messages[0].role == 'system' else '' -%}
{%- if first and turns and turns[0].role != 'user' -%}
{{ raise_exception('this template writes the system turn into the first question, and a ' + turns[0].role + ' turn follows it') }}
{%- endif -%}
"""

GEMMA = (
    _MACROS
    + _FOLDED
    + r"""
{{- no_tools('gemma') + begin }}
{%- for message in turns -%}
{%- if message.role == 'user' -%}
{{ '<start_of_turn>user\n' + (first if loop.first else '') + message.content | trim + '<end_of_turn>\n' }}
{%- elif message.role == 'assistant' -%}
{{ '<start_of_turn>model\n' + thought(message) + message.content | trim + '<end_of_turn>\n' }}
{%- else -%}{{ unknown(message) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}
"""
)

# Tools stand before the first question, not the last one: an answer in the middle would be trained without them.
MISTRAL = (
    _MACROS
    + _FOLDED
    + r"""
{{- begin }}
{%- if tools -%}{{ '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{%- endif -%}
{%- for message in turns -%}
{%- if message.role == 'user' -%}
{{ '[INST] ' + (first if loop.first else '') + message.content | trim + ' [/INST]' }}
{%- elif message.role == 'tool' -%}
{{ '[TOOL_RESULTS] ' + message.content | trim + '[/TOOL_RESULTS]' }}
{%- elif message.role == 'assistant' -%}
{%- set written = thought(message) + message.content | trim -%}
{{ ' ' + written if written }}
{%- if message.tool_calls -%}
{{ '[TOOL_CALLS] [' }}
{%- for call in message.tool_calls -%}{{ ('' if loop.first else ', ') + called(call.function, 'arguments') }}{%- endfor -%}
{{ ']' }}
{%- endif -%}
{{ eos_token }}
{%- else -%}{{ unknown(message) }}
{%- endif -%}
{%- endfor -%}
"""
)

TULU = (
    _MACROS
    + r"""
{{- no_tools('tulu') }}
{%- for message in messages -%}
{%- if message.role not in ('system', 'user', 'assistant') -%}{{ unknown(message) }}{%- endif -%}
{{ '<|' + message.role + '|>\n' + thought(message) + message.content }}
{{- eos_token if message.role == 'assistant' }}{{ '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|' + 'assistant' + '|>\n' }}{%- endif -%}
"""
)

# Without a token for the beginning of text, the end of the text before it is what a model knows it by.
SIMPLE = (
    _MACROS
    + r"""
{{- no_tools('simple') + (begin or eos_token or '') }}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ ' Assistant: ' + thought(message) + message.content | trim + eos_token }}
{%- elif message.role in ('system', 'user') -%}{{ ' ' + message.role | capitalize + ': ' + message.content | trim }}
{%- else -%}{{ unknown(message) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ ' Assistant:' }}{%- endif -%}
"""
)

NAMED: dict[str, str] = {
    "olmo": OLMO,
    "chatml": CHATML,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "tulu": TULU,
    "simple": SIMPLE,
}
