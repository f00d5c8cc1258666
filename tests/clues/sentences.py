"""Hand-labelled captions, all made up for these tests.

A caption a line, and below it what it says as "trait.meaning", "!" where that is denied.
"""


def _pairs(table: str) -> dict[str, str]:
    lines = [line.strip() for line in table.strip().splitlines()]
    return dict(zip(lines[::2], lines[1::2], strict=True))


ENGLISH = _pairs("""
A woman speaks slowly in a low, rich voice.
    gender.female pace.slow pitch.low voice quality.rich
His pitch and volume are low.
    gender.male pitch.low volume.quiet
The man sounds furious and shouts at a brisk pace.
    gender.male emotion.angry volume.loud pace.fast
She is not angry, but her voice trembles.
    gender.female !emotion.angry voice quality.trembling
Without any trace of fear or sadness, he reads on.
    gender.male !emotion.fearful !emotion.sad
A slightly annoyed young lady talks rather fast.
    emotion.angry gender.female pace.fast
He hardly sounds happy.
    gender.male !emotion.happy
She cannot hide her joy.
    gender.female emotion.happy
Barely contained rage colours the deep voice.
    emotion.angry pitch.low
With low mood and low energy, the girl whispers.
    emotion.sad volume.quiet gender.female
The pitch is high, the volume low and the speed normal.
    pitch.high volume.quiet pace.normal
Speaking at a moderate speed with normal pitch and volume.
    pace.normal pitch.normal volume.normal
A soft voice and a soft tone.
    volume.quiet tone.gentle
In a hushed voice, the boy says it again.
    volume.quiet gender.male
He raises his voice sharply.
    gender.male volume.loud voice quality.shrill
She lowers her voice.
    gender.female volume.quiet
The intonation rises towards the end.
    intonation.rising
Her pitch falls and the volume fades.
    gender.female intonation.falling volume.fading
A monotonous delivery that never gets loud.
    intonation.flat !volume.loud
It is neither sad nor angry.
    !emotion.sad !emotion.angry
The pitch is neither high nor low.
    pitch.normal
Not only sad but also bitter.
    emotion.sad tone.sarcastic
A calm, composed gentleman with a steady voice.
    emotion.neutral gender.male voice quality.steady
The speech is halting, with many pauses.
    pace.halting
A high-pitched and breathy voice, close to tears.
    pitch.high voice quality.breathy emotion.sad
Utterly terrified, she gasps.
    emotion.fearful gender.female voice quality.breathy
Speaks quickly, loudly and with great enthusiasm.
    pace.fast volume.loud tone.energetic
A sarcastic remark in a cold tone.
    tone.sarcastic tone.cold
The speaker doesn't seem to be bored at all.
    !emotion.bored
She sobs, her voice choked.
    gender.female emotion.sad voice quality.choked
Amazed and wide-eyed, the actor exclaims.
    emotion.surprised gender.male volume.loud
Deep sadness in a deep voice.
    emotion.sad pitch.low
He speaks with a hoarse voice and a sneer of disgust.
    gender.male voice quality.hoarse tone.sarcastic emotion.disgusted
A gentle voice at a gentle pace.
    tone.gentle pace.slow
Her words are clear and her tempo is unhurried.
    gender.female voice quality.clear pace.slow
No longer afraid, he laughs.
    gender.male !emotion.fearful voice quality.laughing
The voice is far from warm.
    !tone.warm
A lack of confidence is heard.
    !tone.firm
Growing louder and louder, the crowd speaker warns firmly.
    volume.swelling tone.firm tone.reproachful
Her tone stays flat.
    gender.female intonation.flat
a shaky voice of normal loudness
    voice quality.trembling volume.normal
he's speeding up, hesitantly
    gender.male pace.accelerating tone.hesitant
""")

CHINESE = _pairs("""
一位女士语速很快，声音响亮。
    gender.female pace.fast volume.loud
他的声音低沉沙哑，语速缓慢。
    gender.male pitch.low voice quality.hoarse pace.slow
说话人并不生气，只是有点累。
    !emotion.angry tone.weary
她不怎么高兴，语气冷淡。
    gender.female !emotion.happy tone.cold
语调上扬，带着掩饰不住的喜悦。
    intonation.rising emotion.happy
没有丝毫恐惧，也没有愤怒。
    !emotion.fearful !emotion.angry
男子压低声音，极其紧张地说话。
    gender.male pitch.low emotion.fearful
音调不高不低，音量适中，语速正常。
    pitch.normal volume.normal pace.normal
声音颤抖，几乎哽咽。
    voice quality.trembling emotion.sad voice quality.choked
用低沉而缓慢的声音叙述。
    pitch.low pace.slow tone.natural
情绪低落，有气无力。
    emotion.sad tone.weary
情绪高涨，语速越来越快。
    emotion.happy pace.accelerating
音调偏高，音量偏小。
    pitch.high volume.quiet
小女孩轻声细语地说着。
    gender.female tone.gentle
语气温柔，毫无责备之意。
    tone.gentle !tone.reproachful
怒不可遏地大吼。
    emotion.angry volume.loud
听起来无聊透顶，语调平淡。
    emotion.bored intonation.flat
满脸厌恶，语气不屑。
    emotion.disgusted emotion.disgusted
惊讶得说不出话来。
    emotion.surprised
语速不快，声音不大。
    pace.slow !volume.loud
语气平静，情绪没有波动。
    emotion.neutral
吞吞吐吐，断断续续。
    tone.hesitant pace.halting
一个老人用沙哑的嗓音慢慢地讲故事。
    voice quality.hoarse pace.slow
声音清脆明亮，语气活泼。
    voice quality.clear voice quality.bright tone.energetic
略带讽刺，阴阳怪气。
    tone.sarcastic tone.sarcastic
她忍不住笑了。
    gender.female voice quality.laughing
语调抑扬顿挫，充满激情。
    intonation.varied tone.energetic
男声浑厚，语气坚定有力。
    gender.male voice quality.rich tone.firm tone.firm
说得很快，听上去又急又慌。
    pace.fast tone.urgent emotion.fearful
尾音下沉，声音越来越小。
    intonation.falling volume.fading
心情平和，不慌不忙。
    emotion.neutral pace.slow
既不悲伤，也不害怕。
    !emotion.sad !emotion.fearful
委屈和气愤一起涌上来。
    emotion.sad emotion.angry
较快的语速和较高的音量。
    pace.fast volume.loud
用尖细的嗓音撒娇。
    pitch.high tone.playful
她看起来并没有什么不满。
    gender.female !emotion.angry
""")
