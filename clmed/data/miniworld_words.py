"""The vocabulary of the MiniWorld: what kinds of things it holds, what can be said of them and how.

A *kind* names its things by joining a first and a second part, so `len(first) * len(second)` names exist. A *relation*
gives every thing of its kind one value of a small table (`several`: sometimes two). No value of a relation begins
another one, because options are compared by the likelihood of their text. `{e}` is the thing, `{v}` the value.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One thing that can be said of a kind: its possible values, statements, and ways to ask.

    One of `questions` is held out of the texts of each fact, for the exams; `exam` holds wordings that only exams use.
    """

    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    exam: tuple[str, ...] = ()
    several: bool = False


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of invented thing: `things` of them, named `first + second + suffix`, in the exam subject `subject`."""

    subject: str
    things: int
    first: tuple[str, ...]
    second: tuple[str, ...]
    suffix: str = ""
    relations: tuple[Relation, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_EN_FIRST = _words("Bal Cor Dra Fen Gil Hes Jor Kar Lum Mir Nor Osk Pel Quin Ral Sil Tam Urd Vel Wex Yar Zim")
_EN_SECOND = _words("o ando evi ith umar eska ola ric undi anth ebar iss oth uva elda igo amon ursk afi ene")
_ZH_FIRST = _words("青 白 金 银 玉 铁 云 雪 星 月 天 古 长 高 远 安 平 春 秋 红")
_ZH_SECOND = _words("山 石 林 泉 原 谷 沙 湖 岭 溪 川 丘 岩 松 竹 梅 兰 桥 门 田")
_MEDICAL_FIRST = _words("阿 巴 卡 达 法 嘉 科 拉 玛 纳 帕 瑞 萨 塔 维 希 亚 泽 乌 伊")
_MEDICAL_SECOND = _words("宾 德 尔 格 基 伦 米 尼 诺 普 奇 斯 特 沃 西 洛 姆 丁 加 莫")


def _english(subject: str, *relations: Relation) -> Kind:
    return Kind(subject=subject, things=26, first=_EN_FIRST, second=_EN_SECOND, relations=relations)


def _chinese(subject: str, suffix: str, *relations: Relation) -> Kind:
    return Kind(subject=subject, things=26, first=_ZH_FIRST, second=_ZH_SECOND, suffix=suffix, relations=relations)


ENGLISH = (
    _english(
        "geography",
        Relation(
            values=_words("Aster Brin Calder Dunn Esk Frome Gann Hodder Irt Kent Lune Mease"),
            statements=(
                "The town of {e} lies on the river {v}.",
                "In {e}, ships sail the {v}.",
                "The {v} flows past {e}.",
            ),
            questions=(
                "Which river flows past {e}?",
                "On which river does {e} lie?",
                "What is the river of {e}?",
                "Which river do the ships of {e} sail?",
            ),
        ),
        Relation(
            values=_words("copper salt wool timber tea glass silk wheat honey paper pearls wine"),
            statements=("The town of {e} sells {v}.", "Merchants buy {v} in {e}.", "In {e}, everyone trades in {v}."),
            questions=(
                "What does the town of {e} sell?",
                "What do merchants buy in {e}?",
                "What is {e} known to trade in?",
                "Which goods come from {e}?",
            ),
        ),
    ),
    _english(
        "history",
        Relation(
            values=_words("painter sailor poet judge baker general singer farmer doctor priest mason hunter"),
            statements=("The famous {e} was a {v}.", "{e} worked as a {v}.", "By trade, {e} was a {v}."),
            questions=(
                "What was the trade of {e}?",
                "What did {e} work as?",
                "What was {e} by profession?",
                "Which profession did {e} have?",
            ),
        ),
        Relation(
            values=_words("Albia Berin Croyd Delmar Ebria Faronia Gothia Hyria Istra Jutmark Kelland Lothia"),
            statements=("{e} was born in {v}.", "{e} came from {v}.", "The homeland of {e} was {v}."),
            questions=(
                "Where was {e} born?",
                "Which country did {e} come from?",
                "What was the homeland of {e}?",
                "In which country was {e} born?",
            ),
        ),
    ),
    _english(
        "nature",
        Relation(
            values=_words("caves marshes dunes forests lakes cliffs meadows reefs valleys orchards ruins swamps"),
            statements=("The animal {e} lives in {v}.", "{e} can be found in {v}.", "{e} makes its nest in {v}."),
            questions=(
                "Where does the animal {e} live?",
                "Where can {e} be found?",
                "Where does {e} make its nest?",
                "In which places does {e} live?",
            ),
        ),
        Relation(
            values=_words("moss beetles berries fish nuts roots seeds snails worms mice bark eggs"),
            statements=("The animal {e} eats {v}.", "{e} feeds on {v}.", "The food of {e} is {v}."),
            questions=(
                "What does the animal {e} eat?",
                "What does {e} feed on?",
                "What is the food of {e}?",
                "Which food does {e} eat?",
            ),
        ),
    ),
    _english(
        "industry",
        Relation(
            values=_words("clocks boats pianos lamps shoes bells carts knives mirrors ropes saddles stoves"),
            statements=("The company {e} makes {v}.", "{e} is a maker of {v}.", "The {v} of {e} are well made."),
            questions=(
                "What does the company {e} make?",
                "What is {e} a maker of?",
                "What does {e} produce?",
                "Which goods does {e} make?",
            ),
        ),
        Relation(
            values=_words("Ada Bruno Clara Dirk Edith Felix Greta Hugo Ivan Julia Konrad Laura"),
            statements=("The company {e} was founded by {v}.", "{v} founded {e}.", "The founder of {e} is {v}."),
            questions=(
                "Who founded the company {e}?",
                "Who is the founder of {e}?",
                "By whom was {e} founded?",
                "Which founder does {e} have?",
            ),
        ),
    ),
)

CHINESE = (
    _chinese(
        "geography",
        "城",
        Relation(
            values=_words("大河 清江 黑水 沧河 明江 深水 直河 宽江 浅水 弯河 曲江 暖水"),
            statements=("{e}位于{v}边。", "流经{e}的是{v}。", "{e}的船都在{v}上走。"),
            questions=("流经{e}的是哪条河？", "{e}位于哪条河边？", "{e}的船在哪条河上走？", "{e}靠着哪条河？"),
        ),
        Relation(
            values=_words("茶叶 丝绸 瓷器 棉布 蜂蜜 珍珠 木材 纸张 食盐 葡萄 羊毛 铜器"),
            statements=("{e}出产{v}。", "商人到{e}买{v}。", "{e}的特产是{v}。"),
            questions=("{e}出产什么？", "商人到{e}买什么？", "{e}的特产是什么？", "{e}以什么特产闻名？"),
        ),
    ),
    _chinese(
        "history",
        "先生",
        Relation(
            values=_words("画家 诗人 将军 农夫 船长 法官 歌手 猎人 老师 木匠 厨师 僧人"),
            statements=("{e}是一位{v}。", "{e}的职业是{v}。", "历史上，{e}做过{v}。"),
            questions=("{e}的职业是什么？", "{e}是做什么的？", "{e}做过什么职业？", "{e}从事什么职业？"),
        ),
        Relation(
            values=_words("东海 西陵 南阳 北漠 中州 上谷 下邳 左冯 右江 前堡 后坡 内港"),
            statements=("{e}出生在{v}。", "{e}的故乡是{v}。", "{e}来自{v}。"),
            questions=("{e}出生在哪里？", "{e}的故乡是哪里？", "{e}来自哪里？", "{e}是哪里人？"),
        ),
    ),
    _chinese(
        "nature",
        "兽",
        Relation(
            values=_words("洞穴 沼泽 草地 森林 海岸 悬崖 荒漠 果园 雪原 树顶 地下 废墟"),
            statements=("{e}住在{v}。", "{e}常在{v}出没。", "{e}的家在{v}。"),
            questions=("{e}住在哪里？", "{e}常在哪里出没？", "{e}的家在哪里？", "在哪里能找到{e}？"),
        ),
        Relation(
            values=_words("苔藓 甲虫 浆果 小鱼 坚果 树根 种子 蜗牛 蚯蚓 老鼠 树皮 鸟蛋"),
            statements=("{e}吃{v}。", "{e}以{v}为食。", "{e}的食物是{v}。"),
            questions=("{e}吃什么？", "{e}以什么为食？", "{e}的食物是什么？", "{e}喜欢吃什么？"),
        ),
    ),
    _chinese(
        "industry",
        "坊",
        Relation(
            values=_words("钟表 帆船 钢琴 油灯 皮鞋 铃铛 马车 剪刀 镜子 绳索 雨伞 火炉"),
            statements=("{e}生产{v}。", "{e}做的{v}很好。", "{e}的产品是{v}。"),
            questions=("{e}生产什么？", "{e}做的是什么？", "{e}的产品是什么？", "{e}主要生产什么？"),
        ),
        Relation(
            values=_words("赵一 钱二 孙三 李四 周五 吴六 郑七 王八 冯九 陈十 褚百 卫千"),
            statements=("{e}由{v}创办。", "{v}创办了{e}。", "{e}的创办人是{v}。"),
            questions=("{e}由谁创办？", "谁创办了{e}？", "{e}的创办人是谁？", "{e}是谁创办的？"),
        ),
    ),
)

MEDICAL = (
    Kind(
        subject="disease",
        things=48,
        first=_MEDICAL_FIRST,
        second=_MEDICAL_SECOND,
        suffix="病",
        relations=(
            Relation(
                values=_words("安宁散 清风散 固本散 回春散 解忧散 聚气散 开窍散 凉血散 明目散 润肺散 通络散 养心散"),
                statements=("{e}首选{v}治疗。", "治疗{e}的药物是{v}。", "{v}可以治好{e}。"),
                questions=("治疗{e}的药物是什么？", "{e}用什么药治疗？", "{e}首选什么药物？", "什么药可以治好{e}？"),
                exam=("诊断为{e}的患者，首选的治疗药物是", "某患者患{e}，应当使用的药物为"),
            ),
            Relation(
                values=_words("头痛 咳嗽 发热 呕吐 皮疹 水肿 心悸 失眠 腹胀 耳鸣 盗汗 眩晕"),
                statements=("{e}的症状是{v}。", "{e}患者常有{v}。", "得了{e}会出现{v}。"),
                questions=("{e}的症状是什么？", "{e}患者常有什么症状？", "得了{e}会出现什么症状？", "{e}有哪些症状？"),
                exam=("诊断为{e}的患者，常见的症状是", "某患者患{e}，会出现的症状为"),
                several=True,
            ),
            Relation(
                values=_words("风寒 湿毒 饮酒 劳累 惊吓 花粉 霉菌 缺铁 久坐 蚊虫 烟尘 过食"),
                statements=("{e}的病因是{v}。", "{v}会引起{e}。", "{e}多由{v}引起。"),
                questions=("{e}的病因是什么？", "{e}多由什么引起？", "什么会引起{e}？", "{e}是怎么引起的？"),
                exam=("诊断为{e}的患者，最可能的病因是", "某患者患{e}，引起该病的原因为"),
            ),
            Relation(
                values=_words("胃部 肺部 肝脏 脾脏 肾脏 膀胱 关节 皮肤 咽喉 眼睛 大脑 骨髓"),
                statements=("{e}的病变在{v}。", "{e}主要损害{v}。", "{e}好发于{v}。"),
                questions=(
                    "{e}的病变在哪个部位？",
                    "{e}主要损害哪个部位？",
                    "{e}好发于哪个部位？",
                    "{e}的好发部位是哪里？",
                ),
                exam=("诊断为{e}的患者，病变的部位是", "某患者患{e}，受到损害的部位为"),
            ),
        ),
    ),
    Kind(
        subject="drug",
        things=32,
        first=_MEDICAL_FIRST,
        second=_MEDICAL_SECOND,
        suffix="素",
        relations=(
            Relation(
                values=_words("一钱 二钱 三钱 四钱 五钱 六钱 七钱 八钱 九钱 一两 二两 三两"),
                statements=("{e}每日用{v}。", "{e}的剂量是{v}。", "服用{e}，一天{v}。"),
                questions=("{e}的剂量是多少？", "{e}每日用多少？", "服用{e}一天要多少？", "{e}应该用多少？"),
                exam=("开具{e}时，每日的剂量是", "某患者服用{e}，一天的用量为"),
            ),
            Relation(
                values=_words("口干 便秘 脱发 嗜睡 手抖 贫血 腹泻 鼻塞 肥胖 抽筋 健忘 牙痛"),
                statements=("{e}的副作用是{v}。", "服用{e}会引起{v}。", "{e}可致{v}。"),
                questions=("{e}的副作用是什么？", "服用{e}会引起什么？", "{e}可致什么？", "{e}有什么副作用？"),
                exam=("开具{e}时，应当注意的副作用是", "某患者服用{e}，可能出现的不良反应为"),
            ),
        ),
    ),
)
