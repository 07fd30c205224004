"""Short texts of several languages and domains, to see what a tokenizer makes of them."""

SAMPLES = {
    "English": """The bakery on the corner opens at half past five, when the street is still wet from the night. Before the
first customer comes in, Miriam has already shaped two hundred rolls, and she can tell by the smell alone whether the rye needs
another minute. "People think that bread is flour and water," she says, "but mostly it is waiting." Her apprentice, who came from a
village without a single oven, writes every temperature into a small green notebook. In winter the dough rises slowly; in August it
runs away from you. Nobody has ever measured how much of the neighbourhood's good mood depends on that oven.""",
    "Chinese": """街角的面包店每天清晨五点半开门，那时街道还带着夜里的潮气。第一位顾客进来之前，师傅已经做好了两百个小面包，
单凭气味就能判断黑麦面包是否还需要再烤一分钟。她常说：“人们以为面包只是面粉和水，其实大部分是等待。”她的学徒来自一个没有烤炉的村庄，
把每一个温度都记在绿色的小本子里。冬天面团发得慢，到了八月却快得追不上。从来没有人计算过，这条街的好心情有多少来自那座烤炉。""",
    "Japanese": """角のパン屋は毎朝五時半に開きます。そのころ通りはまだ夜の雨でぬれています。最初のお客さんが来る前に、店主は
もう二百個の丸パンを形づくり、香りだけでライ麦パンにあと一分必要かどうかを見分けます。「パンは小麦粉と水だと思われていますが、ほとんどは
待つことです」と彼女は言います。かまどのない村から来た見習いは、温度をすべて小さな緑のノートに書きとめています。冬の生地はゆっくりふくらみ、
八月には手に負えなくなります。""",
    "Korean": """모퉁이 빵집은 매일 아침 다섯 시 반에 문을 연다. 그 시간의 거리는 아직 밤비에 젖어 있다. 첫 손님이 들어오기 전에 주인은
벌써 둥근 빵 이백 개를 빚어 놓았고, 냄새만으로도 호밀빵이 일 분 더 필요한지 알아낸다. “사람들은 빵이 밀가루와 물이라고 생각하지만, 대부분은
기다림이에요.” 하고 그녀는 말한다. 오븐이 하나도 없는 마을에서 온 견습생은 온도를 모두 작은 초록색 공책에 적는다. 겨울에는 반죽이 천천히
부풀고, 팔월에는 따라잡을 수 없을 만큼 빠르다.""",
    "code": '''from dataclasses import dataclass, field


@dataclass
class Oven:
    """Keeps a temperature by switching its heating on and off."""

    target: float
    tolerance: float = 2.5
    history: list[float] = field(default_factory=list)

    def step(self, measured: float) -> bool:
        self.history.append(measured)
        if len(self.history) > 1_000:
            del self.history[:500]
        return measured < self.target - self.tolerance


static int bake(struct oven *oven, size_t minutes) {
    for (size_t i = 0; i < minutes; i++) {
        if (oven_step(oven, read_sensor(i)) != 0)
            return -EIO;
    }
    return 0;
}

const loaves = orders.filter((o) => o.kind === "rye").map(({ id, weight }) => ({ id, grams: weight * 1000 }));
''',
    "mathematics": """Let a_0 = 1 and a_{n+1} = (a_n + 2/a_n)/2. We show that the sequence converges to the square root of 2. Each
a_n is positive, and a_{n+1}^2 - 2 = (a_n - 2/a_n)^2/4 >= 0, so that a_n >= sqrt(2) for all n >= 1. Then a_{n+1} - a_n =
(2 - a_n^2)/(2 a_n) <= 0: the sequence falls and is bounded below, and has a limit L with L = (L + 2/L)/2, that is L^2 = 2. The first
terms are 1, 1.5, 1.416666..., 1.414215686..., 1.414213562..., with errors 4.1e-1, 8.6e-2, 2.5e-3, 2.1e-6, 1.6e-12.
A tray holds 24 rolls. If 7 trays are baked and 35 rolls are sold before 8:00, then 7 x 24 - 35 = 168 - 35 = 133 are left.""",
    "LaTeX": r"""\section{Heat in a loaf}
\begin{theorem}\label{thm:decay}
Let $u$ solve $\partial_t u = \kappa\,\Delta u$ in the ball $B_R \subset \mathbb{R}^3$ with $u|_{\partial B_R} = 0$. Then
\begin{equation}
  \lVert u(t) \rVert_{L^2(B_R)} \le e^{-\kappa \pi^2 t / R^2} \lVert u(0) \rVert_{L^2(B_R)} .
\end{equation}
\end{theorem}
\begin{proof}
Multiply by $u$, integrate, and use the Poincar\'e inequality with the first eigenvalue $\lambda_1 = \pi^2 / R^2$:
\[
  \frac{1}{2} \frac{\mathrm{d}}{\mathrm{d}t} \int_{B_R} u^2 \,\mathrm{d}x = -\kappa \int_{B_R} |\nabla u|^2 \,\mathrm{d}x
  \le -\kappa \lambda_1 \int_{B_R} u^2 \,\mathrm{d}x . \qedhere
\]
\end{proof}
""",
}
"""By language or domain."""
