"""The sentences that simulated answers are made of, in English and Chinese, and their tokens."""

import re

ENGLISH_OPENING = "[Simulated answer: no model was asked.] "
CHINESE_OPENING = "【模拟回答：没有询问任何模型。】"

ENGLISH_REASONING = (
    "This is a simulated train of thought, so that you can see reasoning arrive before the answer. ",
    "There is no model here; the words come from a short list and are chosen by the prompt's hash. ",
    "Reasoning tokens are counted as output, and are part of the completion. ",
)
CHINESE_REASONING = (
    "这是一段模拟的思考过程，让你看到推理内容先于回答到达。",
    "这里没有模型，句子来自一个简短的列表，由提示词的哈希值选出。",
    "推理部分计入输出词元，也包含在补全之内。",
)

ENGLISH = (
    "A dragonfly sees in almost every direction at once, and still catches one gnat at a time. ",
    "Each word you read here crossed the gateway as its own small event. ",
    "The first one arrived as soon as it was written, and none of them was kept. ",
    "What remains of this conversation is a line of numbers: tokens, cost, time. ",
    "The balance of your key has just become a little smaller, by exactly the listed price. ",
    "If you send the same question again, you will get the same answer, because nothing here is random. ",
    "Streams are relayed byte for byte, so what you see is what was sent. ",
    "When a real provider is configured, its words will take the place of these. ",
    "Four wings that beat in their own time let it stop in the air, and fly backwards. ",
    "A pond at noon holds more patience than a queue of retries. ",
    "It helps to name the fallback models before they are needed. ",
    "A slow reader is not hurried; the provider is held back until the reader is ready. ",
    "If you close the connection now, the provider is told to stop, and only what was sent is charged. ",
    "Prices are whole numbers of billionths of a dollar, so that sums come out even. ",
    "The old naturalists called it a darning needle, and warned children to keep quiet near it. ",
    "Somewhere in the reeds a second one is waiting, in case the first does not answer. ",
    "Light on its wings changes colour with the angle, much like a bill read at month's end. ",
    "Nothing in this sentence depends on what you wrote, except that it was chosen by it. ",
    "A good gateway is noticed as little as good glass. ",
    "That is all there is to say for now; the counters below are the honest part. ",
)

CHINESE = (
    "蜻蜓几乎能同时看见所有方向，却一次只捕一只小虫。",
    "你读到的每个词，都作为一个小小的事件穿过了网关。",
    "第一个词写成就送到，没有一个词被留下。",
    "这次对话剩下的只有一行数字：词元、费用和时间。",
    "你的余额刚刚变小了一点，不多不少，正好是标价。",
    "再问一次同样的问题，会得到同样的回答，因为这里没有随机。",
    "数据流逐字节转发，所见即所发。",
    "配置真实的服务商之后，它的话语会取代这些句子。",
    "四只翅膀各有节拍，于是它能停在空中，也能倒着飞。",
    "正午的池塘，比一串重试更有耐心。",
    "备用的模型，最好在用到之前就写好名字。",
    "读得慢也无妨，网关会让服务商等一等。",
    "现在断开连接，服务商会被告知停止，只收已送达部分的费用。",
    "价格以十亿分之一美元为单位，用整数计算，所以总数分毫不差。",
    "芦苇丛里还有另一只在等，以防第一只不回应。",
    "翅膀上的光随角度变色，像月底翻看的账单。",
    "这句话并不取决于你写了什么，只是由它选中。",
    "好的网关像好的玻璃，几乎看不见。",
    "暂时就说到这里，下面的计数才是实在的部分。",
)

_TOKEN = re.compile(r"\s?[A-Za-z]{1,6}|\s?\d{1,3}|[\u3400-\u9fff]{1,2}|\s?[^\sA-Za-z\d\u3400-\u9fff]|\s")
_CJK = re.compile(r"[\u3400-\u9fff]")


def tokens_of(text: str) -> list[str]:
    """The text in pieces about as long as a model's tokens; joined they are the text again."""
    return _TOKEN.findall(text)


def is_chinese(text: str) -> bool:
    return _CJK.search(text) is not None
