"""A small puzzle of every kind: task, facts, answers that solve it, answers that do not.

Among the latter are those that published checkers accept: expressions that they execute, cells that they do
not look at, numbers that a solver adds.
"""

import json
from typing import Any

SUDOKU = [
    [5, 3, 4, 6, 7, 8, 9, 1, 2],
    [6, 7, 2, 1, 9, 5, 3, 4, 8],
    [1, 9, 8, 3, 4, 2, 5, 6, 7],
    [8, 5, 9, 7, 6, 1, 4, 2, 3],
    [4, 2, 6, 8, 5, 3, 7, 9, 1],
    [7, 1, 3, 9, 2, 4, 8, 5, 6],
    [9, 6, 1, 5, 3, 7, 2, 8, 4],
    [2, 8, 7, 4, 1, 9, 6, 3, 5],
    [3, 4, 5, 2, 8, 6, 1, 7, 9],
]
_GIVEN = [["X" if (i + j) % 3 else cell for j, cell in enumerate(row)] for i, row in enumerate(SUDOKU)]
_OTHER = [[cell % 9 + 1 for cell in row] for row in SUDOKU]  # legal, but not what is given
_UP, _DOWN, _RIGHT = "\u2191", "\u2193", "\u2192"
_HALVES = {
    "grid_size": 2,
    "regions": [
        {"cells": ["(1,1)", "(1,2)"], "target": 2, "operator": "/"},
        {"cells": [[2, 1]], "target": 2, "operator": "+"},
        {"cells": ["(2,2)"], "target": 1, "operator": "*"},
    ],
}
_FUTOSHIKI = {
    "question": "Current puzzle:\nX 2\nX X\n\nX 9",
    "grid_size": 2,
    "prefilled_coords": [[0, 1]],
    "constraints": [[[0, 0], [0, 1], "<"], [[1, 0], [1, 1], ">"]],
}
_CAMP = {
    "grid": [["T", "X"], ["X", "X"]],
    "row_constraints": [1, 0],
    "col_constraints": [0, 1],
    "n": 2,
    "m": 2,
}
_STARS = {"n": 4, "k": 1, "region_grid": [["A"] * 4, ["B"] * 4, ["C"] * 4, ["D"] * 4]}
_REACH_24 = {"numbers": [1, 2, 3, 4], "operators": ["+", "-", "*", "/"], "result": 24}
_OWNERS = {"owns_after": "(('Ann', 'pen'), ('Bob', 'cup'))"}
_SKYLINE = {"n": 2, "top": [2, 1], "bottom": [1, 2], "left": [2, 1], "right": [1, 2]}
_SURVO = {"original_matrix": [[1, 0, 3], [0, 4, 7], [4, 6, 10]], "candidate_numbers": [2, 3], "n": 3}
_CORNERS = {"grid": [[1, "X", 1], ["X", "X", "X"], [1, "X", 1]], "n": 3}
_EXECUTED = "__import__('os').abort()"

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "sudoku",
        {"original_sudoku": _GIVEN},
        [json.dumps(SUDOKU), f"```python\n{tuple(map(tuple, SUDOKU))}\n```"],
        [json.dumps(_OTHER), json.dumps([SUDOKU[0]] * 9), json.dumps(SUDOKU[:8])],
    ),
    (
        "futoshiki",
        _FUTOSHIKI,
        ["[[1 2, 2 1]]", "[[1, 2], [2, 1]]"],
        ["[[2 1, 1 2]]", "[[1 2, 1 2]]", "[[1 2]]"],
    ),
    ("calcudoko", _HALVES, ["[[1 2,2 1]]"], ["[[2 1,1 2]]", "[[1 1,1 1]]", "no"]),
    (
        "skyscraper_puzzle",
        _SKYLINE,
        ["```python\n[[1, 2], # a row\n [2, 1]]\n```"],
        ["[[2, 1], [1, 2]]", "[[1, 2], [1, 2]]"],
    ),
    (
        "survo",
        _SURVO,
        ["[[1, 2, 3], [3, 4, 7], [4, 6, 10]]"],
        ["[[1, 2, 3], [3, 4, 7], [4, 6, 9]]", "[[1, 3, 4], [2, 4, 6], [3, 7, 10]]"],
    ),
    (
        "numbrix",
        {"grid": [[1, "X"], ["X", 3]]},
        ["[[1, 2], [4, 3]]", "[['1','2'],['4','3']]"],
        ["[[1, 4], [3, 2]]", "[[1, 2], [2, 3]]", "[[2, 1], [3, 4]]"],
    ),
    (
        "kukurasu",
        {"row_sums": [2, 1], "col_sums": [2, 1], "n": 2, "m": 2},
        ['[["X", "1"], ["1", "X"]]'],
        ['[["1", "X"], ["1", "X"]]', '[["X", "1"], ["1", "0"]]'],
    ),
    (
        "arrow_maze",
        {"maze": [["2", "X"], ["X", "0"]]},
        [f'```\n[["2", "{_RIGHT}"], ["{_DOWN}", "0"]]\n```'],
        [f'[["2", "{_RIGHT}"], ["{_UP}", "0"]]', '[["0", "0"], ["0", "0"]]', f"[[{_EXECUTED}]]"],
    ),
    (
        "arrow_maze",
        {"maze": [["0", "X"], ["X", "0"]]},
        [],
        ['[["0", "0"], ["0", "0"]]', f'[["0", "{_UP}"], ["{_UP}", "0"]]'],
    ),
    (
        "campsite",
        _CAMP,
        ['[["T", "C"], ["X", "X"]]'],
        ['[["T", "X"], ["C", "X"]]', '[["C", "T"], ["X", "X"]]', '[["T", "X"], ["X", "C"]]'],
    ),
    (
        "minesweeper",
        {"current_mines": [[0, 1], [2, 2]]},
        ["[(0, 1), (2, 2)]", r"\boxed{[[2,2],[0,1]]}"],
        ["[(0, 1)]", "[(0, 1), (2, 2), (1, 1)]", "(1, 2)"],
    ),
    (
        "norinori",
        {"region_grid": [["A", "A", "B"], ["A", "B", "B"], ["A", "A", "B"]]},
        ["[[(1, 1), (2, 1)], [(2, 3), (3, 3)]]"],
        ["[]", "[[(1, 1), (1, 2)], [(1, 3), (2, 3)]]", "[[(1, 1), (3, 3)], [(2, 3), (3, 1)]]", "[[(1, 1)]]"],
    ),
    ("norinori", {"region_grid": [["A", "X"], ["A", "A"]]}, [], ["[[(1, 1), (2, 1)]]", "[[(9, 9), (9, 8)]]"]),
    (
        "number_wall",
        _CORNERS,
        ['[[1, "A", 1], ["A", "A", "A"], ["1", "A", 1]]'],
        ['[[1, "A", 1], ["A", 1, "A"], [1, "A", 1]]', '[[1, "X", 1], ["A", "A", "A"], [1, "A", 1]]'],
    ),
    (
        "number_wall",
        {"grid": [[1, "X"], ["X", 1]], "n": 2},
        [],
        ['[[1, "A"], ["A", 1]]', '[[1, "X"], ["A", 1]]'],
    ),
    (
        "number_wall",
        {"grid": [[1, "X", "X"], ["X"] * 3, ["X"] * 3], "n": 3},
        [],
        [json.dumps([[1, "A", "A"], ["A"] * 3, ["A"] * 3])],
    ),
    (
        "star_placement_puzzle",
        _STARS,
        ['```python\n{"A": [(1, 2)], "B": [(2, 4)], "C": [(3, 1)], "D": [(4, 3)]}\n```'],
        ["{'A': [(1, 1), (2, 2), (3, 3), (4, 4)]}", "[(1, 2), (2, 4), (3, 1)]", "[(0, 9)]"],
    ),
    (
        "wordscapes",
        {"grid": [["X", "X"], ["X", "0"]], "across_words": ["at"], "down_words": ["AN"]},
        ['[["A", "t"], ["n", "0"]]', '[["a","t"],["n",""]]'],
        [
            '[["a", "t"], ["n", "n"]]',
            '[["a", "t"], ["m", "0"]]',
            '[["a", "t"], ["", "0"]]',
            '[["an", "t"], ["n", "0"]]',
        ],
    ),
    (
        "wordscapes",
        {
            "grid": [["X", "X", "X", "X"], ["0", "0", "0", "0"], ["X", "X", "X", "0"]],
            "across_words": ["cart", "art"],
            "down_words": [],
        },
        ['[["c","a","r","t"],["0","0","0","0"],["a","r","t","0"]]'],
        [
            '[["c","a","r","t"],["0","0","0","0"],["z","z","z","0"]]',
            '[["c","a","r","t"],["0","0","0","0"],["c","a","r","0"]]',
        ],
    ),
    (
        "wordscapes",
        {"grid": [["X", "X"], ["X", "X"]], "across_words": ["at"], "down_words": ["an", "to"]},
        ['[["a","t"],["n","o"]]'],
        ['[["a","t"],["n","e"]]'],
    ),
    (
        "boolean_expressions",
        {"answer": "A, C"},
        [r"\boxed{c,A}", r"\boxed{\text{A}, \text{C}}"],
        [r"\boxed{A}", r"\boxed{ABC}", "A, C"],
    ),
    (
        "cipher",
        {"answer": "[[HELLO]]"},
        ['```python\n[["HELLO"]]\n```', "[[HELLO]]"],
        ["```python\n[[data.answer[2:-2]]]\n```", "[[HELL]]", _EXECUTED],
    ),
    ("cryptarithm", {"answer": "12+34=46"}, ["The answer is 12 + 34 = 46."], ["12+34=47", "1+1=2", "none"]),
    (
        "goods_exchange",
        _OWNERS,
        ["```python\n(('bob','Cup'),('Ann','pen'))\n```"],
        [
            "(('Ann', 'pen'))",
            "(('Ann', 'pen'), ('Ann', 'pen'))",
            "(('Ann', 'cup'), ('Bob', 'pen'))",
            _EXECUTED,
        ],
    ),
    (
        "math_path",
        {"query_expr": "?6 + 2 = 1?"},
        ["[[16 + 2 = 18]]", "```\n16+2=18\n```"],
        ["[[16+2=19]]", "[[17+2=19]]", f"[[{_EXECUTED}]]", "[[06 + 2 = 18]]"],
    ),
    (
        "mathador",
        _REACH_24,
        ["```python\n(1+2+3)*4\n```", r"\boxed{1*2*3*4}", "2*(4*3)/1"],
        [
            "1+2+3+4",
            "24",
            "9**9**9**9",
            "(1+2+3)*4*1",
            "(" * 90 + "1*2*3*4" + ")" * 90,
            "1*2*3*4/0",
            _EXECUTED,
        ],
    ),
    (
        "object_counting",
        {"answer": "5"},
        [r"\boxed{5}", r"\boxed{ 05 }"],
        [r"\boxed{6}", "5", r"\boxed{5.0}"],
    ),
    ("object_properties", {"answer": "0"}, [r"\boxed{0}"], [r"\boxed{}", r"\boxed{-1}"]),
    ("operation", {"answer": "2/3"}, [r"\boxed{\frac{2}{3}}"], [r"\boxed{0.6}", "2/3"]),
    ("space_reasoning", {"answer": "Left"}, [r"\boxed{left}"], [r"\boxed{right}", "left"]),
    ("space_reasoning_tree", {"answer": "a, b"}, [r"\boxed{b,a}"], [r"\boxed{a}", r"\boxed{a,b,c}"]),
    (
        "time_sequence",
        {"records": {"answers": {"answer_maxLen": 3, "answer_nums": 2}}, "answer": "[3, 2]"},
        ["So [3, 2]"],
        ["[3, 1]", "[3, 2, 1]", "3"],
    ),
    (
        "web_of_lies",
        {"answer": "yes, no"},
        ["The answer is **Yes, no**.", r"\boxed{true, false}", "I think:\nThe answer is: yes, no"],
        ["**yes**", "**no, yes**", "**yes, no, or not**", "I know that yes, no"],
    ),
    ("word_sorting", {"answer": "ash, bay"}, [r"\boxed{ash,bay}"], [r"\boxed{bay, ash}", "ash, bay"]),
    ("word_sorting_mistake", {"answer": "3"}, [r"\boxed{3}"], [r"\boxed{4}", r"\boxed{No}"]),
    ("word_sorting_mistake", {"answer": None}, [r"\boxed{no}"], [r"\boxed{3}"]),
    (
        "zebra_puzzle",
        {"answer": '{"header": ["House"], "rows": [["1", "red"]]}'},
        [
            '```json\n{"rows": [["1", "red"]], "header": ["House"]}\n```',
            'So {"header":["House"],"rows":[["1","red"]]}',
        ],
        ['{"header": ["House"], "rows": [["1", "blue"]]}', '{"header": ["House"]}', _EXECUTED, "{" * 5000],
    ),
]
